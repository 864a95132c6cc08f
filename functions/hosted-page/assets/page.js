// Relative, so that the page works below a path as well as at the root of an origin.
const API = new URL("..", location.href);
const SESSION = "keyward.session";
const PATIENCE_MS = 30_000;
const DATES = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const element = id => document.getElementById(id);
const [title, lead, bar, filter, list, empty, status, again, reload] =
    ["title", "lead", "bar", "filter", "list", "empty", "status", "again", "reload"].map(element);
const [creation, rotation, revocation, disclosure] =
    ["creation", "rotation", "revocation", "disclosure"].map(element);
const [secret, copied, stored, done] = ["secret", "copied", "stored", "done"].map(element);

let session = remembered();
/** Whether sessions travel in a parameter. Nothing but staging mode hands out tokens. */
let staging = session !== "";
/** The id of the session that the page is about, once that is known. */
let acting = null;
/** The keys on the page by their ids, each with its list item. */
let shown = new Map();
/** The key that the open dialog is about. */
let chosen = null;
/** Whether a change is under way. */
let busy = false;
/** Counts the lists asked for, as a slow answer must not replace a later one. */
let asked = 0;

/** What went wrong, in words for the customer. */
class Failure extends Error {
    constructor(message, status, code) {
        super(message);
        this.status = status;
        /** Whether the browser holds another session than the page is about. */
        this.changed = code === "session_changed";
    }
}

// An embedded page may be denied storage: then the session lasts as long as the page.
function remembered() {
    try {
        return sessionStorage.getItem(SESSION) ?? "";
    } catch {
        return "";
    }
}

function remember(token) {
    session = token;
    try {
        sessionStorage.setItem(SESSION, token);
    } catch {
        // See above.
    }
}

/** Asks the API: with `form` a POST, else a GET. Gives the envelope's data. */
async function call(path, { query = {}, form } = {}) {
    const url = new URL(path, API);
    if (staging) query = { ...query, __dev_session__: session };
    url.search = new URLSearchParams(query);
    let response;
    try {
        response = await fetch(url, {
            method: form ? "POST" : "GET",
            body: form,
            // The server refuses to act by another session that this browser was given meanwhile.
            headers: acting ? { "X-Keyward-Session": acting } : {},
            credentials: "include",
            signal: AbortSignal.timeout(PATIENCE_MS),
        });
    } catch {
        throw new Failure("The server could not be reached. Check your connection.", 0);
    }
    const token = response.headers.get("X-Development-Session");
    if (token) {
        staging = true;
        remember(token);
    }
    const envelope = await response.json().catch(() => null);
    if (response.ok && envelope) return envelope.data;
    const message = envelope?.message || `The server gave no usable answer (${response.status}).`;
    throw new Failure(message, response.status, envelope?.code);
}

async function start() {
    again.hidden = true;
    say("Loading…");
    try {
        const { mode } = await call("deployment");
        staging ||= mode === "staging";
        await exchange();
        const { session_id, api_auth_app: app } = await call("api-auth/session");
        acting = session_id;
        document.title = `${app.name}: API keys`;
        title.textContent = app.name;
        lead.textContent = app.description ?? "API keys";
        element("disabled").hidden = app.is_active;
        bar.hidden = false;
    } catch (failure) {
        if ([401, 403].includes(failure.status) || failure.changed) deny(failure);
        else fail(failure);
        return;
    }
    await load();
}

/** Exchanges the ticket in the address for a session. */
async function exchange() {
    const address = new URL(location.href);
    const ticket = address.searchParams.get("ticket");
    if (ticket === null) return;
    const forget = () => {
        address.searchParams.delete("ticket");
        history.replaceState(history.state, "", address);
    };
    try {
        await call("session/ticket/exchange", { query: { ticket } });
    } catch (failure) {
        // After a fault that is not the ticket's it may still be good.
        if (failure.status >= 400 && failure.status < 500) forget();
        throw failure;
    }
    forget();
}

/** Lists the keys anew; `news` is what to say then. */
async function load(news) {
    const turn = ++asked;
    again.hidden = true;
    list.setAttribute("aria-busy", "true");
    if (!news) say("Loading…");
    try {
        const keys = await call("api-auth/keys", { query: { status: filter.value } });
        if (turn !== asked) return;
        show(keys);
        say(news ?? (keys.length === 1 ? "1 key" : `${keys.length} keys`));
    } catch (failure) {
        if (turn !== asked) return;
        list.hidden = empty.hidden = true;
        if (failure.status === 401 || failure.changed) deny(failure);
        else fail(failure);
    } finally {
        if (turn === asked) list.removeAttribute("aria-busy");
    }
}

/** Shows these keys. Items are kept, so that focus stays where it is and returns when a dialog closes. */
function show(keys) {
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    const now = Date.now();
    const before = shown;
    shown = new Map(keys.map(key => {
        const item = before.get(key.id)?.item ?? element("item").content.firstElementChild.cloneNode(true);
        item.dataset.id = key.id;
        describe(item, key, now);
        return [key.id, { key, item }];
    }));
    list.replaceChildren(...Array.from(shown.values(), ({ item }) => item));
    list.hidden = keys.length === 0;
    empty.hidden = keys.length > 0;
    if (focused) (focused.isConnected && !focused.disabled ? focused : title).focus();
}

function describe(item, key, now) {
    const part = selector => item.querySelector(selector);
    const state = stateOf(key, now);
    part(".name").textContent = key.name;
    part("code").textContent = `${key.key_prefix}…${key.key_suffix}`;
    part(".badge").textContent = state;
    part(".badge").dataset.state = state;
    part(".reason").textContent = key.revoked_reason ? `Revoked: ${key.revoked_reason}` : "";
    part(".created").replaceChildren(instant(key.created_at));
    part(".expires").replaceChildren(instant(key.expires_at));
    part(".used").replaceChildren(instant(key.last_used_at));
    for (const button of item.querySelectorAll("button")) {
        button.setAttribute("aria-label", `${button.textContent} ${key.name}`);
        button.disabled = state === "revoked";
    }
}

function stateOf(key, now) {
    if (!key.is_active) return "revoked";
    return key.expires_at && Date.parse(key.expires_at) <= now ? "expired" : "active";
}

function instant(text) {
    if (!text) return "—";
    const at = new Date(text);
    // The formatter throws at what is no date, and one key must not take the list along.
    if (Number.isNaN(at.getTime())) return "unreadable";
    const time = document.createElement("time");
    time.dateTime = text;
    time.textContent = DATES.format(at);
    return time;
}

function say(text, wrong = false) {
    status.textContent = text;
    status.classList.toggle("error", wrong);
}

function fail(failure) {
    say(failure.message, true);
    again.hidden = false;
    // What was not foreseen belongs in the console as well.
    if (!(failure instanceof Failure)) throw failure;
}

/** Shows that there is no access any more. A secret that is on display stays: it could not be had again. */
function deny(failure) {
    if (failure.status === 401) remember("");
    // What is still being listed must not appear.
    asked += 1;
    for (const dialog of [creation, rotation, revocation]) dialog.close();
    shown.clear();
    list.replaceChildren();
    for (const part of [bar, list, empty, again, element("disabled")]) part.hidden = true;
    reload.hidden = !failure.changed;
    document.title = title.textContent = failure.changed ? "Session changed" : "Access required";
    lead.textContent = failure.changed
        ? "Another session was opened in this browser. This page can do nothing more."
        : "You do not have access to this resource.";
    say(failure.changed ? "Reload to see whose keys it is about." : failure.message);
    title.focus();
}

function open(dialog, key = null) {
    chosen = key;
    dialog.querySelector("form").reset();
    dialog.querySelector(".error").textContent = "";
    for (const name of dialog.querySelectorAll(".name")) name.textContent = key.name;
    dialog.showModal();
}

/**
 * Makes `change` what the dialog's form does: it gives the news and, where a secret was issued, the key with it. An
 * error is shown in the dialog, which stays open.
 */
function submits(dialog, change) {
    const form = dialog.querySelector("form");
    const error = dialog.querySelector(".error");
    dialog.querySelector(".cancel").addEventListener("click", () => busy || dialog.close());
    dialog.addEventListener("cancel", event => busy && event.preventDefault());
    form.addEventListener("submit", async event => {
        event.preventDefault();
        if (busy) return;
        busy = true;
        form.setAttribute("aria-busy", "true");
        error.textContent = "";
        try {
            const { news, issued } = await change(new FormData(form), chosen);
            dialog.close();
            if (issued) disclose(issued);
            load(news);
        } catch (failure) {
            if (failure.status === 401 || failure.changed) {
                deny(failure);
                return;
            }
            error.textContent = failure.message;
            // The change may have been made all the same, or the list be out of date.
            load();
            if (!(failure instanceof Failure)) throw failure;
        } finally {
            busy = false;
            form.removeAttribute("aria-busy");
        }
    });
}

/** Shows the secret of a key until the customer says that it is stored. */
function disclose(key) {
    element("disclosure-title").textContent = `Secret of ${key.name}`;
    secret.value = key.secret;
    copied.textContent = "";
    stored.checked = false;
    done.disabled = true;
    disclosure.showModal();
    element("copy").focus();
}

async function copy() {
    try {
        await navigator.clipboard.writeText(secret.value);
        copied.textContent = "Copied";
    } catch {
        // In a frame the clipboard may be out of reach.
        secret.select();
        copied.textContent = document.execCommand("copy") ? "Copied" : "Copy the selected text yourself";
    }
}

function local(instant) {
    return new Date(instant - new Date(instant).getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

submits(creation, async fields => {
    const form = new URLSearchParams({ name: fields.get("name") });
    const expiry = fields.get("expires_at");
    if (expiry) form.set("expires_at", new Date(expiry).toISOString());
    const issued = await call("api-auth/keys", { form });
    return { news: `${issued.name} was created.`, issued };
});

submits(rotation, async (_, key) => {
    const issued = await call(`api-auth/keys/${key.id}/rotate`, { form: new URLSearchParams() });
    return { news: `${issued.name} was rotated.`, issued };
});

submits(revocation, async (fields, key) => {
    await call(`api-auth/keys/${key.id}/revoke`, { form: new URLSearchParams(fields) });
    return { news: `${key.name} was revoked.` };
});

element("create").addEventListener("click", () => {
    const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
    element("zone").textContent = `Optional. In your time zone, ${timeZone}.`;
    element("expiry").min = local(Date.now());
    element("expiry").max = "9999-12-30T23:59";
    open(creation);
});

list.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const { key } = shown.get(button.closest("li").dataset.id);
    element("rotation-expired").hidden = stateOf(key, Date.now()) !== "expired";
    open(element(button.dataset.dialog), key);
});

filter.addEventListener("change", () => load());
again.addEventListener("click", start);
reload.addEventListener("click", () => location.reload());
element("copy").addEventListener("click", copy);
stored.addEventListener("change", () => { done.disabled = !stored.checked; });
done.addEventListener("click", () => disclosure.close());

// Not every browser knows `closedby`, and none gives a secret back.
disclosure.addEventListener("close", () => {
    if (stored.checked) secret.value = "";
    else disclosure.showModal();
});
addEventListener("beforeunload", event => {
    if (disclosure.open && !stored.checked) event.preventDefault();
});

// A page that is rendered ahead may never be looked at: it must not use up its ticket.
if (document.prerendering) document.addEventListener("prerenderingchange", start, { once: true });
else start();
