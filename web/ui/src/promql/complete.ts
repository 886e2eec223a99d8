/** Completion of metric and function names at the caret. Pure. */

const functions =
  'abs absent absent_over_time avg avg_over_time bottomk ceil changes clamp clamp_max clamp_min count count_over_time count_values day_of_month day_of_week days_in_month delta deriv exp floor group histogram_avg histogram_count histogram_fraction histogram_quantile histogram_sum hour idelta increase irate label_join label_replace last_over_time limitk ln log10 log2 max max_over_time min min_over_time minute month predict_linear present_over_time quantile quantile_over_time rate resets round scalar sgn sort sort_by_label sort_by_label_desc sort_desc sqrt stddev stddev_over_time stdvar sum sum_over_time time timestamp topk vector year'.split(
    ' ',
  );

export interface Suggestion {
  text: string;
  kind: 'metric' | 'function';
}

export const suggestionsMax = 12;

/** The word that ends at the caret, when a metric or function name may stand there; undefined inside braces and strings. */
export function wordAt(expr: string, caret: number): { from: number; word: string } | undefined {
  let braces = 0;
  let quote = '';
  for (let i = 0; i < caret; i++) {
    const c = expr[i];
    if (quote !== '') {
      if (c === '\\' && quote !== '`') i += 1;
      else if (c === quote) quote = '';
    } else if (c === '"' || c === "'" || c === '`') quote = c;
    else if (c === '{' || c === '[') braces += 1;
    else if (c === '}' || c === ']') braces -= 1;
  }
  if (quote !== '' || braces > 0) return undefined;
  const word = /[a-zA-Z_:][a-zA-Z0-9_:]*$/.exec(expr.slice(0, caret))?.[0];
  if (word === undefined || /[0-9]$/.test(expr.slice(0, caret - word.length))) return undefined;
  return { from: caret - word.length, word };
}

/** Names that start with the word, then names that contain it; shorter ones first. */
export function suggest(word: string, names: readonly string[]): Suggestion[] {
  const needle = word.toLowerCase();
  if (needle.length < 2) return [];
  const starts: Suggestion[] = [];
  const contains: Suggestion[] = [];
  const look = (text: string, kind: Suggestion['kind']) => {
    if (text === word) return;
    const at = text.toLowerCase().indexOf(needle);
    if (at === 0) starts.push({ text, kind });
    else if (at > 0 && contains.length < 200) contains.push({ text, kind });
  };
  for (const f of functions) look(f, 'function');
  for (const n of names) look(n, 'metric');
  const order = (a: Suggestion, b: Suggestion) => a.text.length - b.text.length || (a.text < b.text ? -1 : 1);
  return [...starts.sort(order), ...contains.sort(order)].slice(0, suggestionsMax);
}
