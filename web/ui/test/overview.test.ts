import { describe, expect, it } from 'vitest';
import type { Alert, VectorItem } from '../src/api/types';
import {
  concerns,
  filterRows,
  groupRows,
  lagState,
  parseOverview,
  parseSort,
  parseSparks,
  readerLabels,
  sortRows,
  sparkPath,
  timeToDrain,
  totals,
  withAlerts,
} from '../src/pages/overview/model';
import { overviewExpression, readerMatchers, sparkExpression } from '../src/pages/overview/query';

const item = (field: string, labels: Record<string, string>, value: string): VectorItem => ({
  metric: { ...labels, nm_field: field },
  value: [1, value],
});
const alert = (labels: Record<string, string>, state: Alert['state'] = 'firing'): Alert => ({ labels, annotations: {}, state, value: '1' });

describe('time to drain', () => {
  it.each([
    ['empty', 0, undefined, undefined, 0],
    ['draining', 100, 5, 15, 10],
    ['growing', 100, 15, 5, Number.POSITIVE_INFINITY],
    ['standing', 100, 5, 5, Number.POSITIVE_INFINITY],
    ['no rates', 100, undefined, 5, undefined],
    ['no backlog known', undefined, 1, 2, undefined],
  ])('%s', (_name, ready, inRate, outRate, want) => expect(timeToDrain(ready, inRate, outRate)).toBe(want));
});

describe('lag', () => {
  it('is judged against the objective only when both are known', () => {
    expect([
      lagState(61, 60),
      lagState(60, 60),
      lagState(49, 60),
      lagState(10, 60),
      lagState(10, undefined),
      lagState(undefined, 60),
    ]).toEqual(['over', 'near', 'near', 'ok', 'none', 'none']);
  });
});

describe('rows', () => {
  const q = { job: 'r', system: 'redis', queue: 'orders' };
  it('join the fields of one reader and keep readers apart', () => {
    const { rows } = parseOverview([
      item('ready', { ...q, group: 'a' }, '5'),
      item('ready', { ...q, group: 'b' }, '7'),
      item('in_rate', { ...q, group: 'a' }, '2'),
      item('out_rate', { ...q, group: 'a' }, '3'),
      item('lag', { ...q, group: 'a' }, '90'),
      item('slo', { ...q, group: 'a' }, '60'),
    ]);
    expect(rows.map((r) => [r.labels.group, r.ready, r.drain, r.lagState])).toEqual([
      ['a', 5, 5, 'over'],
      ['b', 7, undefined, 'none'],
    ]);
  });
  it('a dead-letter queue is a row without ready; an objective alone is none', () => {
    const { rows } = parseOverview([item('dead', { ...q, queue: 'dlq' }, '3'), item('slo', { ...q, queue: 'ghost' }, '60')]);
    expect(rows.map((r) => [r.labels.queue, r.ready, r.dead])).toEqual([['dlq', undefined, 3]]);
  });
  it('count nodes', () => {
    const { nodes, nodesDown } = parseOverview([
      item('nodes_down', { system: 'nats', node: 'a' }, '0'),
      item('nodes_down', { system: 'nats', node: 'b' }, '1'),
    ]);
    expect([nodes, nodesDown.map((n) => n.labels['node'])]).toEqual([2, ['b']]);
  });
});

describe('alerts', () => {
  const labels = readerLabels({ system: 'redis', queue: 'orders', group: 'a' });
  it('concern a reader when the labels they carry agree', () => {
    expect(concerns({ queue: 'orders' }, labels)).toBe(true);
    expect(concerns({ queue: 'orders', group: 'a', severity: 'x' }, labels)).toBe(true);
    expect(concerns({ queue: 'orders', group: 'b' }, labels)).toBe(false);
    expect(concerns({ queue: 'orders', vhost: '/' }, labels)).toBe(false);
    expect(concerns({ system: 'redis', node: 'n' }, labels)).toBe(false);
  });
  it('make new rows, so that views notice', () => {
    const { rows } = parseOverview([item('ready', { system: 'redis', queue: 'orders', group: 'a' }, '1')]);
    const alerts = [
      alert({ alertname: 'A', queue: 'orders' }),
      alert({ alertname: 'B', queue: 'orders' }, 'pending'),
      alert({ queue: 'other' }),
    ];
    const [row] = withAlerts(rows, alerts);
    expect([row?.firing, row?.pending, row?.alertNames]).toEqual([1, 1, ['A (firing)', 'B (pending)']]);
    expect(row).not.toBe(rows[0]);
    expect(rows[0]?.firing).toBe(0);
  });
});

function farm(size: number) {
  const items: VectorItem[] = [];
  for (let i = 0; i < size; i++) {
    const l = {
      job: 'j',
      system: ['redis', 'kafka', 'nats'][i % 3] as string,
      queue: `tenant-${(i * 7919) % size}:jobs`,
      group: `g${i % 7}`,
    };
    items.push(
      item('ready', l, String((i * 31) % 1000)),
      item('lag', l, String((i * 17) % 300)),
      item('slo', l, '60'),
      item('consumers', l, '1'),
    );
  }
  return parseOverview(items).rows;
}

describe('sorting, filtering, grouping', () => {
  it('puts unknown values last both ways', () => {
    const { rows } = parseOverview([
      item('ready', { queue: 'a' }, '1'),
      item('dead', { queue: 'b' }, '1'),
      item('ready', { queue: 'c' }, '3'),
    ]);
    expect(sortRows(rows, { column: 'ready', descending: true }).map((r) => r.labels.queue)).toEqual(['c', 'a', 'b']);
    expect(sortRows(rows, { column: 'ready', descending: false }).map((r) => r.labels.queue)).toEqual(['a', 'c', 'b']);
  });
  it('knows numbers in names', () => {
    const { rows } = parseOverview(['q10', 'q9', 'q1'].map((queue) => item('ready', { queue }, '1')));
    expect(sortRows(rows, { column: 'queue', descending: false }).map((r) => r.labels.queue)).toEqual(['q1', 'q9', 'q10']);
  });
  it('sorts anew when the rows are others of the same number', () => {
    const a = parseOverview(['b', 'a'].map((queue) => item('ready', { queue }, '1'))).rows;
    const b = parseOverview(['d', 'c'].map((queue) => item('ready', { queue }, '1'))).rows;
    expect(sortRows(a, { column: 'queue', descending: false }).map((r) => r.labels.queue)).toEqual(['a', 'b']);
    expect(sortRows(b, { column: 'queue', descending: false }).map((r) => r.labels.queue)).toEqual(['c', 'd']);
  });
  it('every word must match', () => {
    const rows = farm(30);
    expect(filterRows(rows, 'REDIS g3').every((r) => r.labels.system === 'redis' && r.labels.group === 'g3')).toBe(true);
    expect(filterRows(rows, 'nothing')).toEqual([]);
  });
  it('groups keep all rows and sum up', () => {
    const rows = farm(30);
    const sections = groupRows(rows, 'system');
    expect(sections.map((s) => s.name)).toEqual(['kafka', 'nats', 'redis']);
    expect(sections.reduce((n, s) => n + s.ready, 0)).toBe(totals(rows).ready);
  });
  it('an unknown sort in the URL is the default one', () => expect(parseSort('-nonsense')).toEqual(parseSort(null)));
  it('5 000 rows sort and filter within 50 ms', () => {
    const rows = farm(5000);
    sortRows(rows, { column: 'queue', descending: false });
    for (const column of ['queue', 'group', 'system', 'ready', 'lag', 'drain'] as const) {
      // The best of five: the machine may be busy with something else.
      const times = Array.from({ length: 5 }, () => {
        const began = performance.now();
        sortRows(filterRows(rows, 'tenant jobs'), { column, descending: true });
        return performance.now() - began;
      });
      expect(Math.min(...times), column).toBeLessThan(50);
    }
  });
});

describe('sparks', () => {
  it('lie on the grid; missing points are gaps', () => {
    const sparks = parseSparks(
      [
        {
          metric: { queue: 'a' },
          values: [
            [100, '1'],
            [160, 'NaN'],
            [220, '3'],
          ],
        },
      ],
      40,
      220,
      60,
    );
    expect([...(sparks.values().next().value ?? [])]).toEqual([Number.NaN, 1, Number.NaN, 3]);
  });
  it('draw gaps as gaps and lone points as dots', () => {
    const { line } = sparkPath([1, 2, Number.NaN, 1], 30, 10);
    expect(line.match(/M/g)?.length).toBe(2);
    expect(line.endsWith('h0.01')).toBe(true);
    expect(sparkPath([], 30, 10).line).toBe('');
  });
});

describe('expressions', () => {
  it('ask for every field once', () => expect(overviewExpression.match(/label_replace/g)?.length).toBe(9));
  it('match exactly one reader, absent labels included', () =>
    expect(readerMatchers(readerLabels({ queue: 'a"b' }))).toBe('job="", system="", cluster="", vhost="", queue="a\\"b", group=""'));
  it('take names literally', () => expect(sparkExpression(['a.b', 'c"d'])).toContain('queue=~"a\\\\.b|c\\"d"'));
});
