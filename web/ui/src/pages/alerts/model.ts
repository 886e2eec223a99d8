/** Filtering and counting of alerting rules. Pure. */
import type { Alert, AlertingRule, AlertState, RuleGroup } from '../../api/types';

/** Worst state of a rule's alerts; the server's own word when it has none. */
export function ruleState(rule: AlertingRule): AlertState {
  const alerts = rule.alerts ?? [];
  if (alerts.some((a) => a.state === 'firing')) return 'firing';
  if (alerts.some((a) => a.state === 'pending')) return 'pending';
  return rule.state ?? 'inactive';
}

export function countRules(groups: readonly RuleGroup[]): { firing: number; pending: number; inactive: number } {
  const counts = { firing: 0, pending: 0, inactive: 0 };
  for (const g of groups) {
    for (const r of g.rules) {
      const s = ruleState(r);
      if (s === 'firing' || s === 'pending') counts[s] += 1;
      else counts.inactive += 1;
    }
  }
  return counts;
}

const contains = (labels: Readonly<Record<string, string>>, word: string) =>
  Object.entries(labels).some(([k, v]) => `${k}=${v}`.toLowerCase().includes(word));

/** A rule that matches by name keeps all alerts; otherwise it keeps those whose labels match every word. */
export function filterGroups(groups: readonly RuleGroup[], state: AlertState | undefined, text: string): RuleGroup[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return groups.flatMap((g) => {
    const rules = g.rules.flatMap((r): AlertingRule[] => {
      if (
        state &&
        (state === 'inactive'
          ? ['firing', 'pending'].includes(ruleState(r))
          : ruleState(r) !== state && !(r.alerts ?? []).some((a) => a.state === state))
      )
        return [];
      const alerts = (r.alerts ?? []).filter((a) => state === undefined || state === 'inactive' || a.state === state);
      const byName = words.every(
        (w) => r.name.toLowerCase().includes(w) || g.name.toLowerCase().includes(w) || contains(r.labels ?? {}, w),
      );
      if (byName) return [{ ...r, alerts }];
      const matching = alerts.filter((a: Alert) => words.every((w) => r.name.toLowerCase().includes(w) || contains(a.labels, w)));
      return matching.length > 0 ? [{ ...r, alerts: matching }] : [];
    });
    return rules.length > 0 ? [{ ...g, rules }] : [];
  });
}
