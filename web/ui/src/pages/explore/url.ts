/** State of the Explore page in the URL, with the parameter names of Prometheus' own pages, old and new spellings. Pure. */
import { format as formatDuration, parse as parseDuration } from '../../format/duration';
import { dateTime, parseDateTime } from '../../format/time';

export type Tab = 'table' | 'graph';
export type Density = 'low' | 'medium' | 'high';
export type Resolution = { type: 'auto'; density: Density } | { type: 'fixed' | 'custom'; step: number };

export interface PanelState {
  expr: string;
  tab: Tab;
  /** Milliseconds. */
  range: number;
  /** End of the graph in ms; null is now. */
  end: number | null;
  /** Evaluation time of the table in ms; null is now. */
  moment: number | null;
  stacked: boolean;
  fromZero: boolean;
  resolution: Resolution;
}

export const defaultPanel: PanelState = {
  expr: '',
  tab: 'table',
  range: 3_600_000,
  end: null,
  moment: null,
  stacked: false,
  fromZero: false,
  resolution: { type: 'auto', density: 'medium' },
};
/** More panels than this are not read from a URL. */
export const panelsMax = 50;

const densities: Density[] = ['low', 'medium', 'high'];

export function decodePanels(params: URLSearchParams): PanelState[] {
  const panels: PanelState[] = [];
  for (let i = 0; i < panelsMax; i++) {
    const get = (name: string) => params.get(`g${i}.${name}`);
    if (get('expr') === null) break;
    const tab = get('tab');
    const step = seconds(get('res_step') ?? get('step_input'));
    const type = get('res_type') ?? (get('step_input') !== null ? 'custom' : 'auto');
    const range = parseDuration(get('range_input') ?? '');
    const density = densities.find((d) => d === get('res_density')) ?? 'medium';
    panels.push({
      expr: get('expr') ?? '',
      tab: tab === '0' || tab === 'graph' ? 'graph' : 'table',
      range: range !== undefined && range > 0 ? range : defaultPanel.range,
      end: moment(get('end_input')),
      moment: moment(get('moment_input')),
      stacked: get('display_mode') === 'stacked' || (get('display_mode') === null && get('stacked') === '1'),
      fromZero: get('y_axis_min') === '0',
      resolution: (type === 'fixed' || type === 'custom') && step !== undefined ? { type, step } : { type: 'auto', density },
    });
  }
  return panels;
}

export function encodePanels(panels: readonly PanelState[]): URLSearchParams {
  const params = new URLSearchParams();
  panels.forEach((p, i) => {
    const set = (name: string, value: string) => params.set(`g${i}.${name}`, value);
    set('expr', p.expr);
    set('tab', p.tab);
    set('range_input', formatDuration(p.range));
    if (p.end !== null) set('end_input', dateTime(p.end, 'utc'));
    if (p.moment !== null) set('moment_input', dateTime(p.moment, 'utc'));
    if (p.stacked) set('display_mode', 'stacked');
    if (p.fromZero) set('y_axis_min', '0');
    if (p.resolution.type !== 'auto') {
      set('res_type', p.resolution.type);
      set('res_step', String(p.resolution.step / 1000));
    } else if (p.resolution.density !== 'medium') {
      set('res_type', 'auto');
      set('res_density', p.resolution.density);
    }
  });
  return params;
}

function moment(text: string | null): number | null {
  return text === null || text === '' ? null : (parseDateTime(text, 'utc') ?? null);
}

/** Milliseconds from a number of seconds or a duration. */
function seconds(text: string | null): number | undefined {
  if (text === null || text === '') return undefined;
  const n = Number(text);
  const ms = Number.isFinite(n) ? n * 1000 : parseDuration(text);
  return ms !== undefined && ms > 0 ? ms : undefined;
}

const points: Record<Density, number> = { low: 100, medium: 250, high: 750 };

/** Step of a range query in milliseconds: whole seconds unless the range is very short. */
export function stepOf(range: number, resolution: Resolution): number {
  if (resolution.type !== 'auto') return resolution.step;
  const raw = range / points[resolution.density];
  return raw >= 1000 ? Math.round(raw / 1000) * 1000 : Math.max(1, Math.round(raw));
}
