"use strict";
// What HTML and htmx cannot do: dropping and pasting images, copying IDs, and moving the focus to new results.
(() => {
  const byId = (id) => document.getElementById(id);

  // A new image or a pasted ID starts a new search. The text and the filters stay.
  const searchFor = (part) => {
    for (const id of ["image", "product"]) byId(id).value = part[id] ?? "";
    byId("search").requestSubmit();
  };

  const uploadFirstImage = (files) => {
    const image = [...files].find((file) => file.type.startsWith("image/"));
    if (!image) {
      if (files.length) showProblem("Not a photo", "Drop or paste a photo: JPEG, PNG, WebP, GIF, TIFF, BMP or AVIF.");
      return;
    }
    const transfer = new DataTransfer();
    transfer.items.add(image);
    byId("upload").files = transfer.files;
    byId("upload").dispatchEvent(new Event("change", { bubbles: true }));
  };

  const showProblem = (title, detail) => {
    const box = document.createElement("div");
    box.className = "empty problem";
    box.setAttribute("role", "alert");
    box.append(Object.assign(document.createElement("p"), { textContent: detail }));
    byId("title").textContent = title;
    byId("status").textContent = "";
    byId("results").replaceChildren(box);
  };

  // Runs in the capture phase, before htmx submits the form.
  document.addEventListener("change", (event) => {
    if (event.target.id !== "upload") return;
    const [file] = event.target.files;
    const maxBytes = Number(byId("search").dataset.maxBytes);
    if (file && file.size <= maxBytes - 10_000) {
      byId("product").value = "";
    } else {
      event.stopPropagation();
      if (file) showProblem("Too large", `This photo has ${Math.ceil(file.size / 1e6)} MB; the limit is ${Math.floor(maxBytes / 1e6)} MB.`);
      event.target.value = "";
    }
  }, true);

  let dragDepth = 0;
  const setDragDepth = (depth) => {
    dragDepth = Math.max(0, depth);
    document.documentElement.classList.toggle("dropping", dragDepth > 0);
  };
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => hasFiles(event) && setDragDepth(dragDepth + 1));
  document.addEventListener("dragleave", (event) => hasFiles(event) && setDragDepth(dragDepth - 1));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    setDragDepth(0);
    uploadFirstImage(event.dataTransfer.files);
  });

  document.addEventListener("paste", (event) => {
    const { files } = event.clipboardData;
    const isInField = event.target.closest?.("input, textarea");
    if (files.length) {
      event.preventDefault();
      uploadFirstImage(files);
    } else if (!isInField) {
      const product = event.clipboardData.getData("text").trim();
      if (product) searchFor({ product });
    }
  });

  const copyText = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    // The clipboard API exists with https only; this works without.
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    await copyText(button.dataset.copy);
    button.focus();
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1500);
    byId("status").textContent = `Copied ${button.dataset.copy}`;
  });

  // An image that cannot be loaded.
  document.addEventListener("error", (event) => event.target.closest?.(".image")?.classList.add("missing"), true);

  // Responses that are not the page: the login form, when the key is no longer valid, and problems as JSON.
  document.addEventListener("htmx:after:request", (event) => {
    const { response, text } = event.detail.ctx;
    if (new URL(response.raw.url).pathname === "/login") {
      event.preventDefault();
      location.assign(`/login?${new URLSearchParams({ then: location.pathname + location.search })}`);
    } else if (response.headers.get("content-type")?.includes("json")) {
      event.preventDefault();
      const problem = JSON.parse(text);
      showProblem(problem.title, problem.detail);
    }
  });
  document.addEventListener("htmx:error", (event) => {
    if (event.detail.ctx) showProblem("No connection", "The service cannot be reached. Try again in a moment.");
  });

  // A swap removes the focused element: move the focus to the new results. Keep the scroll position while the visitor
  // changes filters.
  let firstNewCard = 0;
  let keepsScroll = false;
  document.addEventListener("htmx:before:swap", (event) => {
    const { sourceEvent, target } = event.detail.ctx;
    firstNewCard = target?.id === "more" ? byId("grid").children.length - 1 : 0;
    keepsScroll = firstNewCard || (sourceEvent?.type === "change" && sourceEvent.target.id !== "upload");
  });
  document.addEventListener("htmx:after:swap", () => {
    const hasLostFocus = !document.activeElement || document.activeElement === document.body;
    const target = firstNewCard ? byId("grid").children[firstNewCard]?.querySelector("a") : byId("title");
    if (hasLostFocus) target?.focus({ preventScroll: true });
    const { top } = byId("title").getBoundingClientRect();
    if (!keepsScroll && (top < 0 || top > innerHeight / 2)) byId("title").scrollIntoView();
  });
})();
