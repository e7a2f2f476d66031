// SPDX-License-Identifier: Apache-2.0

// Visits the status page with a real browser, and prints what it observed as JSON.
//
//   node page.mjs TOOLS [SCREENSHOTS] < visits.json
//
// TOOLS is the folder with the browser and its driver, SCREENSHOTS the folder for screenshots. A visit is
// {name, url, colorScheme, width, height, noJavaScript, axe, tabs, open, scroll, screenshot}.
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { text } from 'node:stream/consumers';

const [tools, screenshots] = process.argv.slice(2);
const require = createRequire(resolve(tools, 'page.mjs'));
const { chromium } = require('playwright-core');

// Everything is on loopback. A request to another host fails, and the failed request fails the test.
const args = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-quic', '--no-first-run', '--disable-lcd-text',
  '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1',
];

const visits = JSON.parse(await text(process.stdin));
const observations = {};
const browser = await chromium.launch({ executablePath: resolve(tools, 'chromium'), args });
try {
  for (const visit of visits) {
    const context = await browser.newContext({
      colorScheme: visit.colorScheme ?? 'light',
      viewport: { width: visit.width ?? 1280, height: visit.height ?? 800 },
      javaScriptEnabled: !visit.noJavaScript,
      bypassCSP: visit.axe ?? false, // axe is a script, which the policy of the page blocks.
    });
    observations[visit.name] = await observe(await context.newPage(), visit);
    await context.close();
  }
} finally {
  await browser.close();
}
process.stdout.write(JSON.stringify(observations));

async function observe(page, visit) {
  const o = { console: [], failedRequests: [], requests: [], tabs: [], accessibilityBugs: [] };
  page.on('console', (m) => o.console.push(`${m.type()}: ${m.text()}`));
  page.on('pageerror', (e) => o.console.push(`error: ${e.message}`));
  page.on('dialog', (d) => { o.console.push(`dialog: ${d.message()}`); d.dismiss(); });
  page.on('request', (r) => o.requests.push(r.url()));
  page.on('requestfailed', (r) => o.failedRequests.push(`${r.url()}: ${r.failure()?.errorText}`));
  page.on('response', (r) => { if (r.status() >= 400) o.failedRequests.push(`${r.url()}: ${r.status()}`); });

  const response = await page.goto(visit.url, { waitUntil: 'load' });
  o.headers = response.headers();
  o.bytes = (await response.body()).length;
  await readContent(page, o);
  if (visit.open) await openDetails(page, o);
  if (!visit.noJavaScript) await measure(page, o);
  if (visit.tabs) await pressTab(page, o, visit.tabs);
  if (visit.scroll) await scrollTable(page, o);
  if (visit.axe) await checkAccessibility(page, o);
  if (visit.screenshot) await page.screenshot({ path: join(screenshots, visit.screenshot) });
  return o;
}

async function readContent(page, o) {
  o.title = await page.title();
  o.heading = await page.locator('h1').innerText();
  o.headings = (await page.locator('h1, h2, h3').allInnerTexts()).map((t) => t.trim());
  o.problems = await page.locator('.problems li').allInnerTexts();
  o.tables = await page.locator('table').count();
  o.rows = await page.locator('tbody tr').count();
  o.stores = await page.locator('tbody th > bdi').allTextContents();
  o.columns = await page.locator('table').first().locator('thead th').allInnerTexts().catch(() => []);
  o.text = await page.locator('body').innerText();
}

async function openDetails(page, o) {
  const closed = page.locator('details:not([open]) > summary');
  while (await closed.count() > 0) await closed.first().click();
  o.openedText = await page.locator('body').innerText();
  o.links = await page.locator('a[href*="/graph?"]').evaluateAll((all) => all.map((a) => a.href)).catch(() => []);
}

// Only the region of the table may be wider than the page.
async function measure(page, o) {
  o.overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  o.background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  o.activeElements = await page.evaluate(
    () => document.querySelectorAll('script, img, iframe, object, link, form').length,
  );
}

async function pressTab(page, o, times) {
  for (let i = 0; i < times; i++) {
    await page.keyboard.press('Tab');
    o.tabs.push(await page.evaluate(() => {
      const e = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(e);
      const visible = outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
      const label = e.getAttribute('aria-label') ?? e.innerText.trim();
      return `${e.tagName.toLowerCase()} ${label}${visible ? '' : ' (focus is not visible)'}`;
    }));
  }
}

async function scrollTable(page, o) {
  const region = page.locator('[role=region]').first();
  await region.focus();
  const before = await region.evaluate((e) => e.scrollLeft);
  for (let i = 0; i < 3; i++) await page.keyboard.press('ArrowRight');
  await page.waitForFunction((b) => document.querySelector('[role=region]').scrollLeft > b, before);
  o.scrolled = true;
}

async function checkAccessibility(page, o) {
  await page.addScriptTag({ path: require.resolve('axe-core/axe.min.js') });
  const result = await page.evaluate(() => globalThis.axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  }));
  const elements = (v) => v.nodes.slice(0, 5).map((n) => n.html.slice(0, 200)).join(' | ');
  o.passedChecks = result.passes.length;
  o.accessibilityBugs = result.violations.map((v) => `${v.id}: ${v.help}: ${elements(v)}`);
  for (const v of result.incomplete) {
    if (v.id !== 'color-contrast') o.accessibilityBugs.push(`undecided ${v.id}: ${v.help}`);
  }
}
