// The server's API, and the one place where messages to the reader are set.

const API = "/api/v1";
let session = null;

export class Fault extends Error {}

/** Ask the server; the JSON of its answer. A fault has the server's own line as its message. */
export async function ask(method, path, body, type = "application/json") {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = type;
    options.body = type === "application/json" ? JSON.stringify(body) : body;
  }
  for (let again = 0; ; again++) {
    let answer;
    try {
      answer = await fetch(`${API}/${path}`, options);
    } catch {
      throw new Fault("the server cannot be reached; is it still running?");
    }
    if (answer.status === 503 && again < 20) {  // the model is starting
      await new Promise((done) => setTimeout(done, 1000 * Number(answer.headers.get("Retry-After") || 1)));
      continue;
    }
    const told = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Fault(told.error || `the server answered ${answer.status}`);
    return told;
  }
}

export const get = (path) => ask("GET", path);
export const post = (path, body) => ask("POST", path, body);

/** Upload a picture into this page's session; a session that has expired is begun anew. */
export async function upload(file) {
  const send = () => ask("POST", `images${session ? `?session=${session}` : ""}`, file, "application/octet-stream");
  let told;
  try {
    told = await send();
  } catch (fault) {
    if (!session || !/session/.test(fault.message)) throw fault;
    session = null;
    told = await send();
  }
  session = told.session;
  return told;
}

/** Ask about a picture {id, file}, and where its session has ended meanwhile, upload it again. */
export async function reopened(path, body, picture) {
  try {
    return await post(path, { ...body, image: picture.id });
  } catch (fault) {
    if (!/upload it again/.test(fault.message)) throw fault;
    picture.id = (await upload(picture.file)).image;
    return post(path, { ...body, image: picture.id });
  }
}

/** The address at which an uploaded picture is shown. */
export const shown = (image) => `${API}/images/${image}`;

addEventListener("pagehide", () => {
  if (session) fetch(`${API}/sessions/${session}`, { method: "DELETE", keepalive: true }).catch(() => {});
  session = null;
});

/** Say something to the reader, also aloud. */
export function say(text, kind = "") {
  const line = document.getElementById("status");
  line.textContent = text;
  line.className = kind;
}

/** Do something that may fail; what failed is said. */
export async function attempt(work) {
  try {
    return await work();
  } catch (fault) {
    if (!(fault instanceof Fault)) console.error(fault);
    say(fault instanceof Fault ? fault.message : "something went wrong on this page; reload it", "bad");
    return undefined;
  }
}

/** An element with attributes, properties in `own`, and children. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") element.addEventListener("click", value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export const by = (id) => document.getElementById(id);

/** A fraction in points with its sign. */
export const points = (value) => `${value < 0 ? "\u2212" : "+"}${Math.abs(100 * value).toFixed(1)}`;
export const percent = (value) => (100 * value).toFixed(1);

/** Let the browser save a blob. */
export function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
