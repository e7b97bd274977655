"use strict";
// What HTML and htmx cannot do: images that are dropped or pasted, ids that are copied, and who has the focus.
(() => {
  const at = (id) => document.getElementById(id);

  // A new image, or a pasted id, is a new question; words and filters stay.
  const ask = (fresh) => {
    for (const id of ["image", "product"]) at(id).value = fresh[id] ?? "";
    at("ask").requestSubmit();
  };

  const askWith = (files) => {
    const image = [...files].find((file) => file.type.startsWith("image/"));
    if (!image) return files.length && tell("This is no image", "Drop or paste an image: JPEG, PNG, WebP, GIF, TIFF, BMP or AVIF.");
    const sent = new DataTransfer();
    sent.items.add(image);
    at("upload").files = sent.files;
    at("upload").dispatchEvent(new Event("change", { bubbles: true }));
  };

  const tell = (title, detail) => {
    const box = document.createElement("div");
    box.className = "empty problem";
    box.setAttribute("role", "alert");
    box.append(Object.assign(document.createElement("p"), { textContent: detail }));
    at("title").textContent = title;
    at("status").textContent = "";
    at("found").replaceChildren(box);
  };

  // Before htmx, which listens at the form.
  document.addEventListener("change", (event) => {
    if (event.target.id !== "upload") return;
    const [file] = event.target.files;
    const most = Number(at("ask").dataset.most);
    if (file && file.size <= most - 10_000) {
      at("product").value = "";
    } else {
      event.stopPropagation();
      if (file) tell("Too large", `This image has ${Math.ceil(file.size / 1e6)} MB; the limit is ${Math.floor(most / 1e6)} MB.`);
      event.target.value = "";
    }
  }, true);

  let inside = 0;
  const dragging = (step) => {
    inside = Math.max(0, step ? inside + step : 0);
    document.documentElement.classList.toggle("dropping", inside > 0);
  };
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => hasFiles(event) && dragging(1));
  document.addEventListener("dragleave", (event) => hasFiles(event) && dragging(-1));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    dragging(0);
    askWith(event.dataTransfer.files);
  });

  document.addEventListener("paste", (event) => {
    const { files } = event.clipboardData;
    const typing = event.target.closest?.("input, textarea");
    if (files.length) {
      event.preventDefault();
      askWith(files);
    } else if (!typing) {
      const product = event.clipboardData.getData("text").trim();
      if (product) ask({ product });
    }
  });

  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    // Without https there is only the old way.
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "hidden" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    await copy(button.dataset.copy);
    button.focus();
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1500);
    at("status").textContent = `Copied ${button.dataset.copy}`;
  });

  // An image whose file is gone.
  document.addEventListener("error", (event) => event.target.closest?.(".image")?.classList.add("gone"), true);

  // Not a page: a problem of the gate, or the way in after the key was taken back.
  document.addEventListener("htmx:after:request", (event) => {
    const { response, text } = event.detail.ctx;
    if (new URL(response.raw.url).pathname === "/login") {
      event.preventDefault();
      location.assign(`/login?${new URLSearchParams({ then: location.pathname + location.search })}`);
    } else if (response.headers.get("content-type")?.includes("json")) {
      event.preventDefault();
      const problem = JSON.parse(text);
      tell(problem.title, problem.detail);
    }
  });
  document.addEventListener("htmx:error", (event) => {
    if (event.detail.ctx) tell("No answer", "The service cannot be reached just now. Ask again in a moment.");
  });

  // What had the focus is gone with the old products: it goes to the new ones. Who works on the filters stays there.
  let next = 0;
  let stay = false;
  document.addEventListener("htmx:before:swap", (event) => {
    const { sourceEvent, target } = event.detail.ctx;
    next = target?.id === "more" ? at("grid").children.length - 1 : 0;
    stay = next || (sourceEvent?.type === "change" && sourceEvent.target.id !== "upload");
  });
  document.addEventListener("htmx:after:swap", () => {
    const lost = !document.activeElement || document.activeElement === document.body;
    const place = next ? at("grid").children[next]?.querySelector("a") : at("title");
    if (lost) place?.focus({ preventScroll: true });
    const { top } = at("title").getBoundingClientRect();
    if (!stay && (top < 0 || top > innerHeight / 2)) at("title").scrollIntoView();
  });
})();
