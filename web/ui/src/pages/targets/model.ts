/** Grouping and filtering of targets. Pure. */
import type { Target } from '../../api/types';

export interface Pool {
  name: string;
  /** Of all its targets, whatever the filter. */
  up: number;
  total: number;
  /** Those that pass the filter, troubled ones first. */
  shown: Target[];
}

const rank: Record<string, number> = { down: 0, unknown: 1, up: 2 };
const collator = new Intl.Collator('en', { numeric: true });

export function filterTargets(targets: readonly Target[], health: string | undefined, text: string): Target[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return targets.filter((t) => {
    if (health && t.health !== health) return false;
    if (words.length === 0) return true;
    const hay = [t.scrapePool, t.scrapeUrl, t.lastError, ...Object.entries(t.labels).map(([k, v]) => `${k}=${v}`)].join('\n').toLowerCase();
    return words.every((w) => hay.includes(w));
  });
}

/** Pools with trouble first, then by name. */
export function poolsOf(all: readonly Target[], shown: readonly Target[]): Pool[] {
  const pools = new Map<string, Pool>();
  for (const t of all) {
    const p = pools.get(t.scrapePool) ?? { name: t.scrapePool, up: 0, total: 0, shown: [] };
    pools.set(t.scrapePool, p);
    p.total += 1;
    if (t.health === 'up') p.up += 1;
  }
  for (const t of shown) pools.get(t.scrapePool)?.shown.push(t);
  const list = [...pools.values()].filter((p) => p.shown.length > 0);
  for (const p of list) p.shown.sort((a, b) => (rank[a.health] ?? 1) - (rank[b.health] ?? 1) || collator.compare(a.scrapeUrl, b.scrapeUrl));
  return list.sort((a, b) => Number(a.up === a.total) - Number(b.up === b.total) || collator.compare(a.name, b.name));
}
