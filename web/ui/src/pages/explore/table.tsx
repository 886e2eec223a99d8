/** An instant result as rows. Values are the server's own text. */
import { useState } from 'preact/hooks';
import type { HistogramValue, QueryData } from '../../api/types';
import { type LabelSet, labelName, quote } from '../../format/labels';
import { count } from '../../format/number';
import { clock } from '../../format/time';
import { memo } from '../../parts/memo';
import { zone } from '../../settings';

/** More rows than this are shown on demand only. */
export const rowsMax = 10_000;
/** Label colours are switched off above this: tens of thousands of elements make the page slow. */
const plainAbove = 1000;

export const histogramText = (h: HistogramValue): string =>
  `histogram: count ${h.count}, sum ${h.sum}${h.buckets ? `, ${h.buckets.length} buckets` : ''}`;

export const ResultTable = memo(function ResultTable({ data }: { data: QueryData }) {
  const [all, setAll] = useState(false);
  const z = zone.value;
  if (data.resultType === 'scalar' || data.resultType === 'string') {
    return (
      <table class="plain results">
        <tbody>
          <tr>
            <th scope="row">{data.resultType}</th>
            <td class="num mono">{data.resultType === 'string' ? quote(data.result[1]) : data.result[1]}</td>
          </tr>
        </tbody>
      </table>
    );
  }
  const size = data.result.length;
  if (size === 0) return <div class="note">Empty result: no series matches at this time.</div>;
  const shown = all ? size : Math.min(size, rowsMax);
  const plain = shown > plainAbove;
  return (
    <>
      <div class="results-box">
        <table class="plain results">
          <thead class="sr">
            <tr>
              <th scope="col">Series</th>
              <th scope="col">Value</th>
            </tr>
          </thead>
          <tbody>
            {data.resultType === 'vector'
              ? data.result.slice(0, shown).map((item, i) => (
                  <tr key={i}>
                    <th scope="row">
                      <Series metric={item.metric} plain={plain} />
                    </th>
                    <td class="num mono">{item.histogram ? histogramText(item.histogram[1]) : item.value?.[1]}</td>
                  </tr>
                ))
              : data.result.slice(0, shown).map((item, i) => (
                  <tr key={i}>
                    <th scope="row">
                      <Series metric={item.metric} plain={plain} />
                    </th>
                    <td class="num mono points">
                      {(item.values ?? []).map(([t, v]) => (
                        <div key={t}>
                          {v} <span class="muted">@ {clock(t * 1000, z)}</span>
                        </div>
                      ))}
                      {(item.histograms ?? []).map(([t, h]) => (
                        <div key={t}>
                          {histogramText(h)} <span class="muted">@ {clock(t * 1000, z)}</span>
                        </div>
                      ))}
                    </td>
                  </tr>
                ))}
          </tbody>
        </table>
      </div>
      {shown < size ? (
        <div class="note">
          The first {count(shown)} of {count(size)} series are shown.{' '}
          <button type="button" class="button small" onClick={() => setAll(true)}>
            Show all
          </button>
        </div>
      ) : null}
    </>
  );
});

/** A series name as PromQL, coloured; everything from the server is a text node. */
export function Series({ metric, plain = false }: { metric: LabelSet; plain?: boolean }) {
  const name = metric['__name__'];
  const labels = Object.keys(metric)
    .filter((n) => n !== '__name__')
    .sort();
  if (plain) {
    return (
      <span class="series">
        {name}
        {labels.length === 0 && name ? '' : `{${labels.map((n) => `${labelName(n)}=${quote(metric[n] ?? '')}`).join(', ')}}`}
      </span>
    );
  }
  return (
    <span class="series">
      <span class="series-name">{name}</span>
      {labels.length === 0 && name ? null : (
        <>
          {'{'}
          {labels.map((n, i) => (
            <span key={n}>
              {i > 0 ? ', ' : ''}
              <span class="series-label">{labelName(n)}</span>=<span class="series-value">{quote(metric[n] ?? '')}</span>
            </span>
          ))}
          {'}'}
        </>
      )}
    </span>
  );
}
