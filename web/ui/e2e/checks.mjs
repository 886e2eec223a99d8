// What is done on each page. `run` throws when something is not as it must be. They hold against any server with data:
// what needs a queue is skipped when there is none, and says so.
const must = (condition, text) => {
  if (!condition) throw new Error(text);
};
const text = (page, selector) => page.$eval(selector, (e) => e.textContent ?? '');
const rows = (page) => page.$$eval('.qbody .qrow', (list) => list.length);

export const checks = [
  {
    name: 'overview',
    path: '/',
    run: async ({ page }) => {
      must((await page.$('.qtable, .empty')) !== null, 'neither a table nor an empty state');
      if ((await page.$('.qtable')) === null) return console.log('note: no queues on this server');
      must((await rows(page)) > 0, 'a table without rows');
      must((await page.$$('.tile')).length === 4, 'four tiles expected');
      await page.waitForSelector('.spark', { timeout: 5000 });
    },
  },
  {
    name: 'overview sorts, filters and groups in the URL',
    path: '/',
    once: true,
    run: async ({ page }) => {
      if ((await page.$('.qtable')) === null) return;
      await page.click('.qhead .c-ready button');
      must(page.url().includes('sort=-ready'), `sort is not in the URL: ${page.url()}`);
      const name = await text(page, '.qbody .c-queue a');
      const values = await page.$$eval('.qbody .c-ready', (l) =>
        l.map((e) => Number((e.getAttribute('title') ?? '').replace(/,/g, ''))).filter((n) => !Number.isNaN(n)),
      );
      must(
        values.every((v, i) => i === 0 || v <= values[i - 1]),
        'rows are not in descending order of ready',
      );
      await page.type('.search input', 'nothing-has-this-name');
      must((await page.$('.empty')) !== null && page.url().includes('q=nothing'), 'the filter does not filter');
      await page.click('.empty button');
      must((await rows(page)) > 0, 'clearing the filter shows no rows');
      await page.evaluate(() => [...document.querySelectorAll('.group-switch button')].find((b) => b.textContent === 'system').click());
      await page.waitForSelector('.qsection');
      must(page.url().includes('group=system'), 'grouping is not in the URL');
      await page.reload({ waitUntil: 'domcontentloaded' });
      await page.waitForSelector('.qsection', { timeout: 10_000 });
      must(name.length > 0, 'the first queue has no name');
    },
  },
  {
    name: 'overview shows the alerts of a queue',
    path: '/?only=alerts',
    once: true,
    run: async ({ page, root }) => {
      const some = await page.evaluate(async (url) => {
        const { data } = await (await fetch(`${url}/api/v1/alerts`)).json();
        return data.alerts.some((a) => a.state === 'firing' && a.labels.queue);
      }, root);
      if (!some) return;
      // Before the next refresh would come.
      await page.waitForSelector('.qbody .c-alerts .badge.bad', { timeout: 3000 });
    },
  },
  {
    name: 'queue',
    path: '/',
    run: async ({ page, settled }) => {
      if ((await page.$('.qbody .c-queue a')) === null) return;
      await page.click('.qbody .c-queue a');
      await page.waitForSelector('.queue-head h1');
      await settled();
      await page.waitForSelector('.charts .uplot', { timeout: 10_000 });
      must((await page.$$('.charts .card')).length === 4, 'four charts expected');
    },
  },
  {
    name: 'queue opens in explore, back returns',
    path: '/',
    once: true,
    run: async ({ page, settled }) => {
      if ((await page.$('.qbody .c-queue a')) === null) return;
      await page.click('.qbody .c-queue a');
      await page.waitForSelector('.chart .card-head a');
      const before = page.url();
      await page.click('.chart .card-head a');
      await page.waitForSelector('.panel .uplot', { timeout: 10_000 });
      await settled();
      must(page.url().includes('g0.expr='), 'no expression in the URL');
      await page.goBack();
      await page.waitForSelector('.queue-head h1');
      must(page.url() === before, 'back does not return to the queue');
    },
  },
  {
    name: 'explore table',
    path: '/explore?g0.expr=up&g0.tab=1',
    run: async ({ page }) => {
      must((await page.$$('.results tbody tr')).length > 0, 'up has no rows');
      must(/series/.test(await text(page, '.stats')), 'no stats line');
    },
  },
  {
    name: 'explore graph',
    path: '/explore?g0.expr=up&g0.tab=0&g0.range_input=15m',
    run: async ({ page }) => {
      await page.waitForSelector('.panel .uplot canvas', { timeout: 10_000 });
      must((await page.$$('.legend-entry')).length > 0, 'no legend');
    },
  },
  {
    name: 'explore zooms by dragging and back',
    path: '/explore?g0.expr=up&g0.tab=graph&g0.range_input=15m',
    once: true,
    run: async ({ page, settled }) => {
      const box = await (await page.waitForSelector('.u-over')).boundingBox();
      await page.mouse.move(box.x + box.width * 0.5, box.y + 60);
      must(await page.$eval('.plot-tip', (e) => e instanceof HTMLElement), 'no tooltip');
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.75, box.y + 80, { steps: 5 });
      await page.mouse.up();
      await page.waitForFunction(() => location.search.includes('end_input'), { timeout: 5000 });
      must(!page.url().includes('range_input=15m'), 'the zoom did not change the range');
      await settled();
      await new Promise((r) => setTimeout(r, 400));
      const again = await (await page.$('.u-over')).boundingBox();
      await page.mouse.click(again.x + again.width * 0.5, again.y + 60, { count: 2 });
      await page.waitForFunction(() => location.search.includes('range_input=15m'), { timeout: 5000 });
    },
  },
  {
    name: 'explore isolates and toggles in the legend',
    path: '/explore?g0.expr=up&g0.tab=graph',
    once: true,
    run: async ({ page }) => {
      const size = (await page.$$('.legend-entry')).length;
      if (size < 2) return;
      await page.click('.legend-entry');
      must((await page.$$('.legend-entry.off')).length === size - 1, 'click does not isolate');
      await page.click('.legend-entry');
      must((await page.$$('.legend-entry.off')).length === 0, 'a second click does not bring all back');
      await page.keyboard.down('Control');
      await page.click('.legend-entry');
      await page.keyboard.up('Control');
      must((await page.$$('.legend-entry.off')).length === 1, 'Ctrl+click does not toggle');
    },
  },
  {
    name: 'explore takes the old links of Prometheus',
    path: '/graph?g0.expr=vector(1)&g0.tab=1&g1.expr=time()&g1.tab=0&g1.range_input=5m&g1.stacked=1',
    once: true,
    run: async ({ page, root }) => {
      await page.waitForFunction(() => document.querySelectorAll('.panel').length === 2, { timeout: 5000 });
      must(page.url().startsWith(`${root}/explore?`), `the address is ${page.url()}`);
      must((await page.$eval('.editor-area', (e) => e.value)) === 'vector(1)', 'the expression is not there');
      await page.click('[aria-label="Remove panel 1"]');
      await page.waitForFunction(() => document.querySelectorAll('.panel').length === 1);
      must((await page.$eval('.editor-area', (e) => e.value)) === 'time()', 'the wrong panel was removed');
    },
  },
  {
    name: 'explore runs on Enter, completes names, remembers',
    path: '/explore',
    once: true,
    run: async ({ page, settled }) => {
      await page.waitForFunction(() => document.activeElement?.classList.contains('editor-area'), { timeout: 5000 });
      await page.keyboard.type('scrape_dur');
      await page.waitForSelector('.hint', { timeout: 5000 });
      await page.keyboard.press('ArrowDown');
      await page.keyboard.press('Enter');
      must((await page.$eval('.editor-area', (e) => e.value)) === 'scrape_duration_seconds', 'the name was not completed');
      await page.keyboard.press('Enter');
      await page.waitForSelector('.results tbody tr', { timeout: 5000 });
      must(page.url().includes('g0.expr=scrape_duration_seconds'), 'the expression is not in the URL');
      await settled();
      await page.keyboard.down('Control');
      await page.keyboard.press('ArrowUp');
      await page.keyboard.up('Control');
      must((await page.$eval('.editor-area', (e) => e.value)) === 'scrape_duration_seconds', 'the history is empty');
    },
  },
  {
    name: 'explore shows the error of the server as it is',
    path: '/explore?g0.expr=sum(up&g0.tab=table',
    once: true,
    // The browser itself reports the 400 it got.
    tolerates: /HTTP 400|status of 400/,
    run: async ({ page }) => {
      await page.waitForSelector('.alertbox pre', { timeout: 5000 });
      must(/parse error/.test(await text(page, '.alertbox pre')), `the text is ${await text(page, '.alertbox pre')}`);
    },
  },
  {
    name: 'the page says when the server is away, and resumes',
    path: '/targets',
    once: true,
    tolerates: /ERR_INTERNET_DISCONNECTED/,
    run: async ({ page }) => {
      await page.setOfflineMode(true);
      await page.click('[aria-label="Refresh now"]');
      await page.waitForSelector('.banner', { timeout: 5000 });
      must((await page.$('.card, .empty')) !== null, 'the last known state is gone');
      await page.setOfflineMode(false);
      await page.waitForFunction(() => document.querySelector('.banner') === null, { timeout: 8000 });
    },
  },
  {
    name: 'alerts',
    path: '/alerts',
    run: async ({ page }) => must((await page.$('.rule, .empty')) !== null, 'neither rules nor an empty state'),
  },
  {
    name: 'targets',
    path: '/targets',
    run: async ({ page }) => must((await page.$('.target-table, .empty')) !== null, 'neither targets nor an empty state'),
  },
  { name: 'status', path: '/status', run: async ({ page }) => must((await page.$('.card table')) !== null, 'no facts') },
  {
    name: 'unknown page',
    path: '/no/such/page',
    once: true,
    run: async ({ page }) => must((await text(page, 'h1')) === 'No such page', 'no explanation'),
  },
  {
    name: 'theme and zone are remembered',
    path: '/status',
    once: true,
    run: async ({ page }) => {
      const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
      await page.click('[aria-label^="Theme"]');
      await page.click('[aria-label^="Theme"]');
      must((await theme()) === 'dark', 'not dark');
      await page.click('.zone');
      await page.reload({ waitUntil: 'domcontentloaded' });
      await page.waitForSelector('.zone');
      must((await theme()) === 'dark', 'the theme is forgotten');
      must((await text(page, '.zone')) === 'UTC', 'the zone is forgotten');
    },
  },
];
