// Makes hosted-page.png: an app with three keys in the installation of `cargo run`, and its page in a browser, whose path is
// the argument.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const dev = JSON.parse(readFileSync(".keyward/dev.json", "utf8"));

async function post(path, body) {
  const headers = { Authorization: `Bearer ${dev.root_key}`, "Content-Type": "application/json" };
  const response = await fetch(dev.url + path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
  return response.json();
}

const slug = `weather-${Date.now()}`;
await post("/api-auth/apps", { app_slug: slug, name: "Acme Weather API", key_prefix: "acme_live" });
const later = new Date(Date.now() + 90 * 86_400_000).toISOString();
const old = await post(`/api-auth/apps/${slug}/keys`, { name: "Old laptop" });
await post(`/api-auth/apps/${slug}/keys`, { name: "Nightly import", permissions: ["forecast:read"], expires_at: later });
const used = await post(`/api-auth/apps/${slug}/keys`, { name: "Production", permissions: ["forecast:read", "alerts:write"] });
for (let n = 0; n < 3; n++) {
  const principal = { type: "api_key", value: used.secret };
  await post("/v1/authz/check", { principal, apps: [slug], method: "GET", resource: "/v1/forecast" });
}
await post(`/api-auth/apps/${slug}/keys/${old.id}/revoke`, { reason: "Laptop was lost" });
const { ticket } = await post("/session/tickets", {
  ticket_type: "api_auth_access", api_auth_app_slug: slug, user_id: "usr_ada",
});

const args = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run";
const browser = await chromium.launch({ executablePath: process.argv[2], args: args.split(" ") });
const page = await browser.newPage({ viewport: { width: 960, height: 800 }, deviceScaleFactor: 2 });
await page.goto(`${dev.url}/vanity/api-auth?ticket=${ticket}`);
await page.getByLabel("Status").selectOption({ label: "All" });
await page.getByText("Old laptop").waitFor();
const picture = fileURLToPath(new URL("hosted-page.png", import.meta.url));
const bottom = await page.evaluate(() => document.querySelector("main").getBoundingClientRect().bottom);
await page.screenshot({ path: picture, clip: { x: 0, y: 0, width: 960, height: Math.ceil(bottom) } });
await browser.close();
execFileSync("pngquant", ["--force", "--strip", "--output", picture, "64", picture]);
