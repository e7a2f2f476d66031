// SPDX-License-Identifier: Apache-2.0

// Drives a real browser through the status page, and prints what it saw as JSON.
//
//   node page.mjs TOOLS [PICTURES]   with the visits as JSON on standard input
//
// TOOLS is the folder with the browser and with what drives it, PICTURES that for screenshots. A visit is
// {name, url, colorScheme, width, height, javaScript, axe, tabs, open, picture}.
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';

const [tools, pictures] = process.argv.slice(2);
const require = createRequire(resolve(tools, 'page.mjs'));
const { chromium } = require('playwright-core');

// What is fetched is on loopback: a browser that wants anything else fails the test by its failed request.
const args = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-quic', '--no-first-run', '--disable-lcd-text', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
];

const visits = JSON.parse(await text(process.stdin));
const seen = {};
for (const visit of visits) {
  const profile = await mkdtemp(join(tmpdir(), 'operator_store_browser'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: resolve(tools, 'chromium'),
    args,
    colorScheme: visit.colorScheme ?? 'light',
    viewport: { width: visit.width ?? 1280, height: visit.height ?? 800 },
    javaScriptEnabled: visit.javaScript ?? true,
    bypassCSP: visit.axe ?? false, // The check is a script, which the page's own policy keeps out.
  });
  try {
    seen[visit.name] = await look(await context.newPage(), visit);
  } finally {
    await context.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
process.stdout.write(JSON.stringify(seen));

async function look(page, visit) {
  const found = { console: [], failed: [], asked: [], tabs: [], violations: [] };
  page.on('console', (m) => found.console.push(`${m.type()}: ${m.text()}`));
  page.on('pageerror', (e) => found.console.push(`error: ${e.message}`));
  page.on('dialog', (d) => { found.console.push(`dialog: ${d.message()}`); d.dismiss(); });
  page.on('request', (r) => found.asked.push(r.url()));
  page.on('requestfailed', (r) => found.failed.push(`${r.url()}: ${r.failure()?.errorText}`));
  page.on('response', (r) => { if (r.status() >= 400) found.failed.push(`${r.url()}: ${r.status()}`); });

  const response = await page.goto(visit.url, { waitUntil: 'load' });
  found.headers = response.headers();
  found.bytes = (await response.body()).length;
  found.title = await page.title();
  found.heading = await page.locator('h1').innerText();
  found.headings = (await page.locator('h1, h2, h3').allInnerTexts()).map((t) => t.trim());
  found.problems = await page.locator('.problems li').allInnerTexts();
  found.tables = await page.locator('table').count();
  found.rows = await page.locator('tbody tr').count();
  found.stores = await page.locator('tbody th > bdi').allTextContents();
  found.columns = await page.locator('table').first().locator('thead th').allInnerTexts().catch(() => []);
  found.body = await page.locator('body').innerText();
  if (visit.open) {
    const closed = page.locator('details:not([open]) > summary');
    while (await closed.count() > 0) await closed.first().click();
    found.opened = await page.locator('body').innerText();
    found.links = await page.locator('a[href*="/graph?"]').evaluateAll((all) => all.map((a) => a.href)).catch(() => []);
  }
  if (visit.javaScript ?? true) {
    // Nothing but the table's own region is wider than the page.
    found.overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    found.background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    found.elements = await page.evaluate(() => document.querySelectorAll('script, img, iframe, object, link, form').length);
  }
  for (let i = 0; i < (visit.tabs ?? 0); i++) {
    await page.keyboard.press('Tab');
    found.tabs.push(await page.evaluate(() => {
      const e = document.activeElement;
      const outline = getComputedStyle(e);
      const visible = outline.outlineStyle !== 'none' && parseFloat(outline.outlineWidth) >= 2;
      return `${e.tagName.toLowerCase()} ${e.getAttribute('aria-label') ?? e.innerText.trim()}${visible ? '' : ' (focus is not visible)'}`;
    }));
  }
  if (visit.scroll) {
    await page.locator('[role=region]').first().focus();
    const before = await page.locator('[role=region]').first().evaluate((e) => e.scrollLeft);
    for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowRight');
    await page.waitForFunction((b) => document.querySelector('[role=region]').scrollLeft > b, before);
    found.scrolled = true;
  }
  if (visit.axe) {
    await page.addScriptTag({ path: require.resolve('axe-core/axe.min.js') });
    const result = await page.evaluate(() => globalThis.axe.run(document, {
      runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
    }));
    found.checked = result.passes.length;
    found.violations = result.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 5).map((n) => n.html.slice(0, 200)).join(' | ')}`);
    found.violations.push(...result.incomplete.filter((v) => v.id !== 'color-contrast').map((v) => `undecided ${v.id}: ${v.help}`));
  }
  if (visit.picture) {
    await page.screenshot({ path: join(pictures, visit.picture) });
  }
  return found;
}
