"""The HTTP API.

How to add a route:

1. Write the handler in `search_routes`, `product_routes` or `health_routes`. A new file needs its router in the list
   in `serve/app.py`. Handlers are async and run blocking work on `service.executor`, which enforces the deadline.
2. Describe its JSON in `schemas`: a `StrictModel` for the body, a `BaseModel` for the response. A body is read by
   `request_body.read_body` and described for OpenAPI by `request_body.describe_body`; name its model in `serve/app.py`.
3. Raise the errors of `schema/errors`. A new one gets its status in the table of `problems`. List the statuses in
   `responses=document_problems(...)`: `tests/serve/test_openapi.py` sends requests and checks each response against it.
   A message for the operator (a command, an option, a path) needs a second one for the caller: `BadQuery(…, public=…)`.
4. Add the method to `client/requests.py`, then to `Client` and `AsyncClient`.
"""
