/** One uPlot chart: lines or a stack, drag to zoom, tooltip. uPlot styles through CSSOM, which the CSP allows. */
import './plot.css';
import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { compact } from '../format/number';
import { dateTime, type Zone } from '../format/time';
import { dark, zone } from '../settings';
import { type ChartSeries, isolated, stack, type Values } from './series';

export const paletteSize = 12;

export type Unit = 'number' | 'count' | 'seconds';
const decades = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => [1, 2, 5].map((n) => n * 10 ** (from + i))).flat();
// Half a message and 2h 46m are no places for a grid line.
const increments: Record<Unit, number[] | undefined> = {
  number: undefined,
  count: decades(0, 15),
  seconds: [
    ...decades(-3, 0),
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10_800,
    21_600,
    43_200,
    86_400,
    172_800,
    604_800,
    1_209_600,
    2_592_000,
    7_776_000,
    31_536_000,
  ],
};

export interface PlotProps {
  /** Grid in seconds. */
  x: number[];
  /** Visible series, in drawing order. */
  series: ChartSeries[];
  /** What the x axis spans, in seconds. */
  span: [number, number];
  label: string;
  stacked?: boolean;
  /** Fill below lines. */
  filled?: boolean;
  fromZero?: boolean;
  height?: number;
  /** Text of a value on the axis and in the tooltip. */
  show?: (value: number) => string;
  /** What the y axis is divided by; `number` divides decimally. */
  unit?: Unit;
  /** Charts with the same key share the cursor. */
  sync?: string;
  /** `nearest`: one series; `all`: every series at the moment. */
  tip?: 'nearest' | 'all';
  onZoom?: (startMs: number, endMs: number) => void;
  onZoomOut?: () => void;
}

export function Plot(props: PlotProps) {
  const host = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  latest.current = props;
  const chart = useRef<uPlot | undefined>(undefined);
  const z = zone.value;
  const shape = `${dark.value} ${z} ${props.stacked} ${props.fromZero} ${props.height} ${props.sync} ${props.series.map((s) => `${s.color}:${s.name}`).join('\u0000')}`;

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const u = new uPlot(options(latest, z, element.clientWidth || 600), columns(latest.current), element);
    chart.current = u;
    const observer = new ResizeObserver(() => {
      if (element.clientWidth > 0 && element.clientWidth !== u.width)
        u.setSize({ width: element.clientWidth, height: latest.current.height ?? 320 });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      u.destroy();
      chart.current = undefined;
    };
  }, [shape]);

  useEffect(() => {
    chart.current?.setData(columns(props), true);
  }, [props.x, props.series, props.span[0], props.span[1]]);

  return <div class="plot" ref={host} role="img" aria-label={props.label} />;
}

function columns({ x, series, stacked }: PlotProps): uPlot.AlignedData {
  if (!stacked) return [x, ...series.map((s) => s.values)] as uPlot.AlignedData;
  const sums = stack(series.filter((s) => !s.reference).map((s) => s.values));
  let i = 0;
  return [x, ...series.map((s) => (s.reference ? s.values : (sums[i++] as Values)))] as uPlot.AlignedData;
}

const translucent = (color: string, share: number) => `color-mix(in srgb, ${color} ${share}%, transparent)`;

function options(latest: { current: PlotProps }, z: Zone, width: number): uPlot.Options {
  const css = getComputedStyle(document.documentElement);
  const variable = (name: string) => css.getPropertyValue(name).trim();
  const { series, stacked, filled, height = 320, sync, onZoom } = latest.current;
  const muted = variable('--muted');
  const lines = variable('--grid');
  // uPlot reads whole pixels out of this.
  const font = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, "DejaVu Sans", sans-serif';
  const show = (v: number) => (latest.current.show ?? compact)(v);
  const incrs = increments[latest.current.unit ?? 'number'];
  const bands: uPlot.Band[] = [];
  if (stacked) {
    for (let i = 1; i < series.length; i++) {
      const s = series[i];
      if (s && !s.reference) bands.push({ series: [i + 1, i], fill: translucent(variable(`--c${s.color % paletteSize}`), 32) });
    }
  }
  const tip = tooltip(latest, z, show);
  return {
    width,
    height,
    legend: { show: false },
    padding: [10, 12, 0, 0],
    ...(z === 'utc' ? { tzDate: (seconds: number) => uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC') } : {}),
    cursor: {
      drag: { x: onZoom !== undefined, y: false, setScale: false },
      points: { size: 7 },
      ...(series.length <= 60 && latest.current.tip !== 'all' ? { focus: { prox: 24 } } : {}),
      ...(sync ? { sync: { key: sync, scales: ['x', null] } } : {}),
      bind: {
        dblclick: () => () => {
          latest.current.onZoomOut?.();
          return null;
        },
      },
    },
    focus: { alpha: 0.3 },
    scales: {
      x: { time: true, range: () => latest.current.span },
      y: {
        range: (_u, min, max) => {
          if (min === null || max === null || !Number.isFinite(min) || !Number.isFinite(max)) return [0, 1];
          const low = latest.current.fromZero || stacked ? Math.min(0, min) : min;
          if (low === max) return low === 0 ? [0, 1] : uPlot.rangeNum(low, max, 0.1, true);
          const [a, b] = uPlot.rangeNum(low, max, 0.08, true);
          return [low === 0 ? 0 : (a ?? low), b ?? max];
        },
      },
    },
    axes: [
      {
        stroke: muted,
        font,
        size: 36,
        space: 78,
        grid: { stroke: lines, width: 1 },
        ticks: { show: false },
        values: (_u, splits, _axis, _space, increment) => splits.map((t, i) => tick(t, splits[i - 1], increment, z)),
      },
      {
        stroke: muted,
        font,
        gap: 8,
        space: 34,
        ...(incrs ? { incrs } : {}),
        grid: { stroke: lines, width: 1 },
        ticks: { show: false },
        size: (_u, values) => (values ? Math.max(...values.map((v) => String(v ?? '').length)) * 7 + 18 : 40),
        values: (_u, splits) => splits.map((v) => show(Number(v.toPrecision(12)))),
      },
    ],
    series: [
      {},
      ...series.map((s, i): uPlot.Series => {
        const color = s.reference ? variable('--bad') : variable(`--c${s.color % paletteSize}`);
        return {
          label: s.name,
          stroke: color,
          width: s.reference ? 1.3 : stacked ? 1 : 1.6,
          ...(s.dashed ? { dash: [6, 4] } : {}),
          ...((stacked && i === 0) || (filled && !s.reference) ? { fill: translucent(color, stacked ? 32 : 12) } : {}),
          points: {
            size: 4,
            fill: color,
            filter: (u, index, drawn) => (drawn ? null : isolated((u.data[index] as Values | undefined) ?? [])),
          },
        };
      }),
    ],
    bands,
    hooks: {
      ready: [tip.ready],
      setCursor: [tip.move],
      destroy: [tip.destroy],
      setSelect: [
        (u) => {
          const { left, width: w } = u.select;
          if (w < 4) return;
          const a = u.posToVal(left, 'x');
          const b = u.posToVal(left + w, 'x');
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          latest.current.onZoom?.(Math.round(a * 1000), Math.round(b * 1000));
        },
      ],
    },
  };
}

function tick(t: number, before: number | undefined, increment: number, z: Zone): string {
  const [date, time] = dateTime(t * 1000, z).split(' ') as [string, string];
  const short = date.slice(5);
  if (increment >= 86_400) return increment >= 28 * 86_400 ? date : short;
  const text = increment < 60 ? time : time.slice(0, 5);
  const newDay = before === undefined || dateTime(before * 1000, z).slice(0, 10) !== date;
  return newDay ? `${text}\n${short}` : text;
}

/** A box beside the cursor, filled through text nodes only. */
function tooltip(latest: { current: PlotProps }, z: Zone, show: (v: number) => string) {
  const box = document.createElement('div');
  box.className = 'plot-tip';
  box.hidden = true;
  let inside = false;
  const line = (color: string | undefined, name: string, value: string, strong: boolean) => {
    const row = document.createElement('div');
    row.className = strong ? 'plot-tip-row strong' : 'plot-tip-row';
    const mark = document.createElement('i');
    if (color) mark.style.background = color;
    const text = document.createElement('span');
    text.textContent = name;
    const number = document.createElement('b');
    number.textContent = value;
    row.append(mark, text, number);
    return row;
  };
  return {
    ready: (u: uPlot) => {
      u.over.append(box);
      u.over.addEventListener('mouseenter', () => {
        inside = true;
      });
      u.over.addEventListener('mouseleave', () => {
        inside = false;
        box.hidden = true;
      });
    },
    destroy: () => box.remove(),
    move: (u: uPlot) => {
      const { left = -1, top = -1, idx } = u.cursor;
      const { x, series, tip = 'nearest' } = latest.current;
      if (!inside || left < 0 || idx == null || x[idx] === undefined) {
        box.hidden = true;
        return;
      }
      const found: { i: number; distance: number }[] = [];
      series.forEach((s, i) => {
        const y = u.data[i + 1]?.[idx];
        if (y == null || (s.values[idx] ?? null) === null) return;
        found.push({ i, distance: Math.abs(u.valToPos(y, 'y') - top) });
      });
      if (found.length === 0) {
        box.hidden = true;
        return;
      }
      const when = document.createElement('div');
      when.className = 'plot-tip-time';
      when.textContent = dateTime((x[idx] as number) * 1000, z);
      box.replaceChildren(when);
      const css = getComputedStyle(document.documentElement);
      const colorOf = (s: ChartSeries) => css.getPropertyValue(s.reference ? '--bad' : `--c${s.color % paletteSize}`);
      if (tip === 'all') {
        for (const { i } of [...found].reverse().slice(0, 12)) {
          const s = series[i] as ChartSeries;
          box.append(line(colorOf(s), s.name, show(s.values[idx] as number), false));
        }
      } else {
        const nearest = found.reduce((a, b) => (b.distance < a.distance ? b : a));
        // In a stack it is the band under the cursor: the lowest one whose upper edge is above it.
        const under = latest.current.stacked
          ? found.find(({ i }) => (series[i]?.values[idx] ?? 0) > 0 && (u.data[i + 1]?.[idx] ?? 0) >= u.posToVal(top, 'y'))
          : undefined;
        const best = under ?? nearest;
        const s = series[best.i] as ChartSeries;
        box.append(line(colorOf(s), s.labels?.['__name__'] ?? (s.labels ? 'value' : s.name), String(s.values[idx]), true));
        const names = Object.keys(s.labels ?? {}).filter((n) => n !== '__name__');
        for (const n of names.sort().slice(0, 14)) box.append(line(undefined, n, s.labels?.[n] ?? '', false));
      }
      box.hidden = false;
      const w = box.offsetWidth;
      const h = box.offsetHeight;
      const right = left + 16 + w > u.over.clientWidth;
      box.style.left = `${Math.max(0, right ? left - 16 - w : left + 16)}px`;
      box.style.top = `${Math.max(0, Math.min(top - h / 2, u.over.clientHeight - h))}px`;
    },
  };
}
