import { describe, expect, it } from 'vitest';
import { noteServerDate, now } from '../src/api/clock';
import type { Alert, AlertingRule, RuleGroup, Target } from '../src/api/types';
import { countRules, filterGroups } from '../src/pages/alerts/model';
import { readerLabels } from '../src/pages/overview/model';
import { chartExpression, chartSeries, charts } from '../src/pages/queue/charts';
import { words } from '../src/pages/status/words';
import { filterTargets, poolsOf } from '../src/pages/targets/model';

const alert = (state: Alert['state'], labels: Record<string, string>): Alert => ({ labels, annotations: {}, state, value: '1' });
const rule = (name: string, alerts: Alert[]): AlertingRule => ({
  type: 'alerting',
  name,
  query: 'up == 0',
  duration: 0,
  alerts,
  state: 'inactive',
  health: 'ok',
});
const groups: RuleGroup[] = [
  {
    name: 'g',
    file: 'f',
    interval: 30,
    rules: [
      rule('Down', [alert('firing', { queue: 'a' }), alert('pending', { queue: 'b' })]),
      rule('Slow', []),
      rule('Late', [alert('pending', { queue: 'a' })]),
    ],
  },
];

describe('alerts', () => {
  it('a rule counts by its worst alert', () => expect(countRules(groups)).toEqual({ firing: 1, pending: 1, inactive: 1 }));
  it('filter by state keeps the alerts of that state', () => {
    const shown = filterGroups(groups, 'pending', '');
    expect(shown[0]?.rules.map((r) => [r.name, r.alerts?.length])).toEqual([
      ['Down', 1],
      ['Late', 1],
    ]);
    expect(filterGroups(groups, 'inactive', '')[0]?.rules.map((r) => r.name)).toEqual(['Slow']);
  });
  it('filter by label keeps the alerts with it; by name, all', () => {
    expect(filterGroups(groups, undefined, 'queue=b')[0]?.rules.map((r) => [r.name, r.alerts?.length])).toEqual([['Down', 1]]);
    expect(filterGroups(groups, undefined, 'down')[0]?.rules.map((r) => [r.name, r.alerts?.length])).toEqual([['Down', 2]]);
    expect(filterGroups(groups, undefined, 'nothing')).toEqual([]);
  });
});

describe('targets', () => {
  const target = (scrapePool: string, health: string, lastError = ''): Target => ({
    scrapePool,
    health,
    lastError,
    labels: { job: scrapePool },
    scrapeUrl: `http://${scrapePool}/`,
    lastScrape: '',
    lastScrapeDuration: 0,
  });
  const all = [target('b', 'up'), target('a', 'up'), target('c', 'up'), target('c', 'down', 'connection refused')];
  it('trouble comes first; counts are of the whole pool', () => {
    expect(poolsOf(all, filterTargets(all, undefined, '')).map((p) => [p.name, p.up, p.total])).toEqual([
      ['c', 1, 2],
      ['a', 1, 1],
      ['b', 1, 1],
    ]);
    expect(poolsOf(all, filterTargets(all, 'down', '')).map((p) => [p.name, p.up, p.total, p.shown.length])).toEqual([['c', 1, 2, 1]]);
  });
  it('errors can be searched', () => expect(filterTargets(all, undefined, 'REFUSED').length).toBe(1));
});

describe('queue charts', () => {
  const [messages] = charts;
  it('ask for one reader and draw what came, in order', () => {
    if (!messages) throw new Error('no charts');
    expect(chartExpression(messages, readerLabels({ queue: 'a' }), '5m')).toContain(
      'sum(queue_messages_ready{job="", system="", cluster="", vhost="", queue="a", group=""})',
    );
    const series = chartSeries(
      messages,
      [
        { metric: { nm_field: 'ready' }, values: [[0, '1']] },
        { metric: { nm_field: 'in_flight' }, values: [[0, '2']] },
        { metric: { nm_field: 'dead' }, values: [[0, '0']] },
      ],
      0,
      10,
      1,
    );
    expect(series.map((s) => s.name)).toEqual(['In flight', 'Ready']);
  });
});

describe('status', () => {
  it('names become words', () =>
    expect(['lastConfigTime', 'goVersion', 'GOMAXPROCS', 'CWD'].map(words)).toEqual([
      'Last config time',
      'Go version',
      'GOMAXPROCS',
      'Working directory',
    ]));
});

describe('the clock', () => {
  it('follows the server when the difference is more than the header can hide', () => {
    const here = Date.now();
    noteServerDate(new Date(here + 3_600_000).toUTCString(), here);
    expect(Math.abs(now() - Date.now() - 3_600_000)).toBeLessThan(2000);
    noteServerDate('nonsense', here);
    expect(Math.abs(now() - Date.now() - 3_600_000)).toBeLessThan(2000);
    noteServerDate(new Date(here).toUTCString(), here);
    expect(Math.abs(now() - Date.now())).toBeLessThan(50);
  });
});
