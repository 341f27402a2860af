// What the pages gain with a script: uploads that show progress and resume (tus 1.0), and times of the reader's zone.
// Without it they sign in, browse, download and upload by plain links and forms.
"use strict";
(() => {
  const two = (number) => String(number).padStart(2, "0");
  const localTimes = (root) => {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const date = new Date(time.dateTime);
      if (Number.isNaN(date.getTime())) continue;
      const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
      time.textContent = `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
      time.title = date.toString();
    }
  };
  localTimes(document);

  const form = document.getElementById("upload-form");
  if (!form) return;
  const list = document.getElementById("uploads");
  const drop = document.getElementById("drop");
  const input = form.querySelector("input[type=file]");
  const endpoint = form.dataset.tus;
  const RETRIES = [500, 1000, 2000, 3000, 5000, 5000, 10000, 10000, 15000, 15000, 30000, 30000];
  const TUS = { "Tus-Resumable": "1.0.0" };
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const human = (bytes) => {
    let unit = 0;
    while (bytes >= 1024 && unit < 5) { bytes /= 1024; unit += 1; }
    return `${unit ? bytes.toPrecision(3) : bytes} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
  };
  const base64 = (text) => btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""));
  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text) made.textContent = text;
    return made;
  };
  const failed = (message, final) => Object.assign(new Error(message), { final });
  const words = (text, status) => {
    try { return JSON.parse(text).message; } catch { return `the server answered ${status}`; }
  };

  class Upload {
    constructor(file) {
      this.file = file;
      this.key = `haul:${endpoint}:${file.name}:${file.size}:${file.lastModified}`;
      this.row = element("div", "upload");
      this.state = element("div", "state", "waiting");
      this.buttons = element("div", "buttons");
      this.bar = element("progress");
      this.bar.max = Math.max(1, file.size);
      this.bar.value = 0;
      this.bar.setAttribute("aria-label", file.name);
      this.row.append(element("div", "file", file.name), this.state, this.buttons, this.bar);
      list.prepend(this.row);
      this.cancelled = false;
      this.offer("Cancel", () => this.cancel());
    }

    offer(label, act) {
      const button = element("button", "plain", label);
      button.type = "button";
      button.addEventListener("click", act);
      this.buttons.append(button);
    }

    show(offset) {
      this.bar.value = offset;
      const share = this.file.size ? Math.floor((offset / this.file.size) * 100) : 100;
      const seconds = (performance.now() - this.began) / 1000;
      const rate = seconds > 0.5 && offset > this.first ? `, ${human((offset - this.first) / seconds)}/s` : "";
      this.state.textContent = `${share} %, ${human(offset)} of ${human(this.file.size)}${rate}`;
    }

    finish(className, text) {
      this.row.classList.add(className);
      this.state.textContent = text;
      this.buttons.replaceChildren();
      localStorage.removeItem(this.key);
    }

    done(name) {
      const elsewhere = name && decodeURIComponent(name) !== this.file.name;
      this.finish("done", elsewhere ? `done, stored as ${decodeURIComponent(name)}` : `done, ${human(this.file.size)}`);
    }

    async cancel() {
      this.cancelled = true;
      this.request?.abort();
      this.finish("failed", "cancelled");
      if (this.url) await fetch(this.url, { method: "DELETE", headers: TUS }).catch(() => {});
    }

    ask(message) {
      return new Promise((answer) => {
        this.state.textContent = message;
        this.buttons.replaceChildren();
        for (const [label, choice] of [["Replace", "replace"], ["Keep both", "rename"], ["Skip", null]]) {
          this.offer(label, () => {
            this.buttons.replaceChildren();
            answer(choice);
          });
        }
        this.buttons.firstChild.focus();
      });
    }

    // False if the user does not want it after all.
    async create(existing) {
      const metadata = `filename ${base64(this.file.name)},existing ${base64(existing)}`;
      const headers = { ...TUS, "Upload-Length": String(this.file.size), "Upload-Metadata": metadata };
      const response = await fetch(endpoint, { method: "POST", headers });
      if (response.status === 201) {
        this.url = response.headers.get("Location");
        this.name = response.headers.get("Haul-Name");
        localStorage.setItem(this.key, this.url);
        return true;
      }
      if (response.status === 409 && existing === "ask") {
        const choice = await this.ask("A file of this name is there already.");
        if (!choice) { this.finish("done", "skipped"); return false; }
        this.offer("Cancel", () => this.cancel());
        return this.create(choice);
      }
      throw failed(words(await response.text(), response.status), response.status < 500);
    }

    // Where to go on: what the server has; null if it knows nothing of this upload.
    async offset() {
      const response = await fetch(this.url, { method: "HEAD", headers: TUS, cache: "no-store" });
      if (response.status === 404 || response.status === 410) return null;
      if (!response.ok) throw failed(`the server answered ${response.status}`, [401, 403].includes(response.status));
      return Number(response.headers.get("Upload-Offset"));
    }

    send(offset) {
      return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        this.request = request;
        request.open("PATCH", this.url);
        request.setRequestHeader("Tus-Resumable", "1.0.0");
        request.setRequestHeader("Upload-Offset", String(offset));
        request.setRequestHeader("Content-Type", "application/offset+octet-stream");
        request.upload.onprogress = (event) => this.show(offset + event.loaded);
        request.onload = () => {
          const status = request.status;
          if (status === 204) {
            resolve({ offset: Number(request.getResponseHeader("Upload-Offset")), name: request.getResponseHeader("Haul-Name") });
          } else {
            const again = status >= 500 && status !== 507 || [409, 423, 429].includes(status);
            reject(failed(words(request.responseText, status), !again));
          }
        };
        request.onerror = () => reject(failed("the connection was lost", false));
        request.onabort = () => reject(failed("cancelled", true));
        request.send(this.file.slice(offset));
      });
    }

    async run() {
      this.url = localStorage.getItem(this.key);
      let tries = 0;
      let furthest = -1;
      while (!this.cancelled) {
        try {
          let offset = this.url ? await this.offset() : null;
          if (offset === null) {
            if (!(await this.create("ask"))) return;
            offset = 0;
          }
          if (offset > furthest) tries = 0;
          furthest = offset;
          this.began = performance.now();
          this.first = offset;
          this.show(offset);
          if (this.file.size === 0) { this.done(this.name); return; }
          const end = await this.send(offset);
          if (end.offset === this.file.size) { this.done(end.name); return; }
        } catch (error) {
          if (this.cancelled) return;
          if (error.final || tries >= RETRIES.length) { this.finish("failed", error.message); return; }
          this.state.textContent = `${error.message}; trying again`;
          await wait(RETRIES[tries]);
          tries += 1;
        }
      }
    }
  }

  // The listing as it is now, without losing the rows of uploads.
  const refresh = async () => {
    const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
    if (!response?.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const [now, then] = [document.getElementById("listing"), page.getElementById("listing")];
    if (!now || !then) return;
    localTimes(then);
    now.replaceWith(then);
  };
  const queue = [];
  let running = false;
  const start = async () => {
    if (running) return;
    running = true;
    for (let upload = queue.shift(); upload; upload = queue.shift()) {
      if (upload.cancelled) continue;
      await upload.run();
      if (queue.length === 0) await refresh();
    }
    running = false;
  };
  const take = (files) => {
    for (const file of files) queue.push(new Upload(file));
    form.closest("details")?.removeAttribute("open");
    start();
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    take([...input.files]);
    form.reset();
  });
  let depth = 0;
  const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const over = (change) => {
    depth = Math.max(0, depth + change);
    drop.classList.toggle("over", depth > 0);
  };
  addEventListener("dragenter", (event) => { if (holdsFiles(event)) { event.preventDefault(); over(1); } });
  addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
  addEventListener("dragleave", (event) => { if (holdsFiles(event)) over(-1); });
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    over(-depth);
    const items = [...event.dataTransfer.items].filter((item) => !item.webkitGetAsEntry?.()?.isDirectory);
    take(items.map((item) => item.getAsFile()).filter(Boolean));
  });
  addEventListener("beforeunload", (event) => { if (running) event.preventDefault(); });
})();
