import { describe, expect, it } from 'vitest';
import { grid, isolated, nextHidden, onGrid, stack } from '../src/chart/series';
import { decodePanels, defaultPanel, encodePanels, type PanelState, stepOf } from '../src/pages/explore/url';
import { suggest, wordAt } from '../src/promql/complete';

const decode = (search: string) => decodePanels(new URLSearchParams(search));

describe('panels in the URL', () => {
  it('round trip', () => {
    const panels: PanelState[] = [
      { ...defaultPanel, expr: 'up{job="a&b"}' },
      {
        expr: 'sum(x)',
        tab: 'graph',
        range: 900_000,
        end: Date.UTC(2026, 0, 2, 3, 4, 5),
        moment: Date.UTC(2026, 0, 2),
        stacked: true,
        fromZero: true,
        resolution: { type: 'fixed', step: 15_000 },
      },
      { ...defaultPanel, expr: '', resolution: { type: 'auto', density: 'high' } },
    ];
    expect(decodePanels(new URLSearchParams(encodePanels(panels).toString()))).toEqual(panels);
  });
  it('reads the links of the old pages', () => {
    const [p] = decode('g0.expr=up&g0.tab=0&g0.stacked=1&g0.range_input=2h&g0.end_input=2026-01-31%2018:30:00&g0.step_input=30');
    expect(p).toMatchObject({
      tab: 'graph',
      stacked: true,
      range: 7_200_000,
      end: Date.UTC(2026, 0, 31, 18, 30),
      resolution: { type: 'custom', step: 30_000 },
    });
    expect(decode('g0.expr=up&g0.tab=1')[0]?.tab).toBe('table');
  });
  it('reads the links of the new pages', () => {
    const [p] = decode(
      'g0.expr=up&g0.show_tree=0&g0.tab=graph&g0.range_input=1h&g0.res_type=auto&g0.res_density=low&g0.display_mode=stacked&g0.y_axis_min=0&g0.show_exemplars=0',
    );
    expect(p).toMatchObject({ tab: 'graph', stacked: true, fromZero: true, resolution: { type: 'auto', density: 'low' } });
  });
  it('nonsense becomes the default', () => {
    expect(decode('g0.expr=up&g0.tab=7&g0.range_input=soon&g0.end_input=never&g0.res_type=fixed&g0.res_step=-3')).toEqual([
      { ...defaultPanel, expr: 'up' },
    ]);
    expect(decode('g1.expr=up')).toEqual([]);
  });
});

describe('steps', () => {
  it('are whole seconds', () => expect(stepOf(3_600_000, { type: 'auto', density: 'medium' })).toBe(14_000));
  it('are never nothing', () => expect(stepOf(10, { type: 'auto', density: 'high' })).toBe(1));
});

describe('columns', () => {
  it('put points where they belong; what cannot be drawn is a gap', () => {
    expect(grid(10, 11, 0.25)).toEqual([10, 10.25, 10.5, 10.75, 11]);
    expect(
      onGrid(
        {
          metric: {},
          values: [
            [10, '1'],
            [20, 'NaN'],
            [30, '+Inf'],
            [40, '4'],
          ],
        },
        10,
        10,
        4,
      ),
    ).toEqual([1, null, null, 4]);
  });
  it('stack sums from below and keep common gaps', () => {
    expect(
      stack([
        [1, null, 3, null],
        [10, null, null, 40],
      ]),
    ).toEqual([
      [1, null, 3, 0],
      [11, null, 3, 40],
    ]);
  });
  it('find lone points', () => expect(isolated([1, null, 2, 3, null, 4])).toEqual([0, 5]));
});

describe('the legend', () => {
  it('isolates, brings back, toggles', () => {
    const alone = nextHidden(new Set(), 3, 1, false);
    expect(alone).toEqual(new Set([0, 2]));
    expect(nextHidden(alone, 3, 1, false)).toEqual(new Set());
    expect(nextHidden(alone, 3, 0, false)).toEqual(new Set([1, 2]));
    expect(nextHidden(new Set(), 3, 2, true)).toEqual(new Set([2]));
    expect(nextHidden(new Set([0, 1]), 3, 2, true)).toEqual(new Set());
  });
});

describe('completion', () => {
  it('knows where a name may stand', () => {
    expect(wordAt('sum(queue_m', 11)).toEqual({ from: 4, word: 'queue_m' });
    expect(wordAt('up{job="que', 11)).toBeUndefined();
    expect(wordAt('up{jo', 5)).toBeUndefined();
    expect(wordAt('"text', 5)).toBeUndefined();
    expect(wordAt('rate(x[5m', 9)).toBeUndefined();
  });
  it('prefers what starts with the word, and is bounded', () => {
    const names = Array.from({ length: 1000 }, (_, i) => `my_rate_${i}`);
    const found = suggest('rat', ['rating', ...names]);
    expect(found.slice(0, 2).map((s) => s.text)).toEqual(['rate', 'rating']);
    expect(found.length).toBe(12);
    expect(suggest('r', names)).toEqual([]);
  });
});
