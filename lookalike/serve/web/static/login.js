"use strict";
// Who follows a link from elsewhere arrives without the cookie, which is SameSite=Strict: from here it is sent.
const { then } = document.querySelector("form").dataset;
if (!document.getElementById("wrong")) {
  fetch(then, { headers: { Accept: "text/html" }, redirect: "manual" }).then((answer) => {
    if (answer.type !== "opaqueredirect" && answer.status < 500) location.replace(then);
  }).catch(() => {});
}
