/** A range result as a chart with its legend. */
import { useEffect, useMemo, useState } from 'preact/hooks';
import type { QueryData } from '../../api/types';
import { Plot, paletteSize } from '../../chart/plot';
import { type ChartSeries, grid, nextHidden, onGrid } from '../../chart/series';
import { seriesName } from '../../format/labels';
import { count } from '../../format/number';
import { Icon } from '../../parts/icons';
import { Series } from './table';

/** More series than this are drawn on demand only. */
const seriesMax = 500;

interface Props {
  data: QueryData;
  start: number;
  end: number;
  step: number;
  stacked: boolean;
  fromZero: boolean;
  label: string;
  onZoom: (startMs: number, endMs: number) => void;
  onZoomOut: () => void;
}

export function ResultGraph({ data, start, end, step, stacked, fromZero, label, onZoom, onZoomOut }: Props) {
  const [all, setAll] = useState(false);
  const [hidden, setHidden] = useState<ReadonlySet<number>>(new Set());
  const x = useMemo(() => grid(start, end, step), [start, end, step]);
  const items = data.resultType === 'matrix' ? data.result : [];
  const floats = useMemo(() => items.filter((i) => (i.values?.length ?? 0) > 0), [data]);
  const histograms = items.length - floats.length;
  const cut = all ? floats.length : Math.min(floats.length, seriesMax);
  const series = useMemo(
    () =>
      floats.slice(0, cut).map(
        (item, i): ChartSeries => ({
          name: seriesName(item.metric),
          color: i % paletteSize,
          labels: item.metric,
          values: onGrid(item, start, step, x.length),
        }),
      ),
    [floats, cut, x],
  );
  // Hidden entries belong to a set of series; another set starts with all shown.
  const identity = useMemo(() => series.map((s) => s.name).join('\u0000'), [series]);
  useEffect(() => setHidden(new Set()), [identity]);
  const visible = useMemo(() => (hidden.size === 0 ? series : series.filter((_, i) => !hidden.has(i))), [series, hidden]);

  if (data.resultType !== 'matrix') return <div class="note">The server answered a {data.resultType}, which has no graph.</div>;
  if (items.length === 0) return <div class="note">Empty result: no series matches in this range.</div>;
  return (
    <div class="graph">
      {histograms > 0 ? (
        <div class="note">
          {count(histograms)} {histograms === 1 ? 'series holds' : 'series hold'} native histograms, which are not drawn; the table shows
          their count and sum.
        </div>
      ) : null}
      {series.length > 0 ? (
        <Plot
          x={x}
          series={visible}
          span={[start, end]}
          label={label}
          stacked={stacked}
          fromZero={fromZero}
          height={360}
          onZoom={onZoom}
          onZoomOut={onZoomOut}
        />
      ) : null}
      {cut < floats.length ? (
        <div class="note">
          The first {count(cut)} of {count(floats.length)} series are drawn.{' '}
          <button type="button" class="button small" onClick={() => setAll(true)}>
            Draw all
          </button>
        </div>
      ) : null}
      <Legend series={series} hidden={hidden} onHidden={setHidden} />
    </div>
  );
}

const legendMax = 200;

/** Click isolates, Ctrl or Cmd with click toggles; so do Enter and Space. */
function Legend({
  series,
  hidden,
  onHidden,
}: {
  series: ChartSeries[];
  hidden: ReadonlySet<number>;
  onHidden: (next: Set<number>) => void;
}) {
  const [all, setAll] = useState(false);
  const shown = all ? series : series.slice(0, legendMax);
  return (
    <div class="legend" role="group" aria-label="Legend: click shows one series alone, Ctrl+click hides or shows it">
      {shown.map((s, i) => {
        const on = !hidden.has(i);
        return (
          <button
            key={s.name}
            type="button"
            class={on ? 'legend-entry' : 'legend-entry off'}
            aria-pressed={on}
            title="Click: only this one. Ctrl+click: hide or show."
            onClick={(e) => onHidden(nextHidden(hidden, series.length, i, e.ctrlKey || e.metaKey))}
          >
            <i class={`swatch c${s.color}`}>{on ? null : <Icon name="close" />}</i>
            <Series metric={s.labels ?? {}} />
          </button>
        );
      })}
      {shown.length < series.length ? (
        <button type="button" class="button small" onClick={() => setAll(true)}>
          {series.length - shown.length} more entries
        </button>
      ) : null}
    </div>
  );
}
