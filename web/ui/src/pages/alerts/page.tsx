/** Alerting rules by group, with their active alerts. Filter by state and text; both are in the URL. */
import './alerts.css';
import { useMemo, useState } from 'preact/hooks';
import { call } from '../../api/client';
import { useResource } from '../../api/resource';
import type { AlertingRule, AlertState, RuleGroup } from '../../api/types';
import { human } from '../../format/duration';
import { rfc3339 } from '../../format/time';
import { alertTone, Badge, Labels } from '../../parts/badge';
import { Icon } from '../../parts/icons';
import { Empty, ErrorBox, Skeleton } from '../../parts/states';
import { Ago } from '../../parts/time';
import { href, location, setParams } from '../../router';
import { countRules, filterGroups, ruleState } from './model';

const states: AlertState[] = ['firing', 'pending', 'inactive'];
/** A rule with more active alerts shows the rest on demand. */
const alertsMax = 50;

export function AlertsPage() {
  const { params } = location.value;
  const state = states.find((s) => s === params.get('state'));
  const text = params.get('q') ?? '';
  const rules = useResource('rules', async (signal) =>
    (await call<{ groups: RuleGroup[] }>('rules', { type: 'alert' }, { signal })).data.groups.filter((g) => g.rules.length > 0),
  );
  const groups = rules.data;
  const counts = useMemo(() => countRules(groups ?? []), [groups]);
  const shown = useMemo(() => filterGroups(groups ?? [], state, text), [groups, state, text]);

  return (
    <div class="page">
      <div class="page-head">
        <h1>Alerts</h1>
        <span class="segments" role="group" aria-label="State">
          <button type="button" aria-pressed={state === undefined} onClick={() => setParams({ state: undefined })}>
            All {counts.firing + counts.pending + counts.inactive}
          </button>
          {states.map((s) => (
            <button key={s} type="button" aria-pressed={state === s} onClick={() => setParams({ state: s })}>
              {s} {counts[s as 'firing' | 'pending' | 'inactive']}
            </button>
          ))}
        </span>
        <label class="search">
          <span class="sr">Filter rules and alerts</span>
          <Icon name="search" />
          <input
            type="search"
            placeholder="Filter by name or label …"
            value={text}
            onInput={(e) => setParams({ q: e.currentTarget.value })}
          />
        </label>
      </div>
      {rules.error ? <ErrorBox error={rules.error} context="GET rules?type=alert" /> : null}
      {groups === undefined ? (
        rules.error ? null : (
          <Skeleton rows={8} />
        )
      ) : groups.length === 0 ? (
        <Empty title="No alerting rules are loaded">
          <p>
            Rule files are named under <code>rule_files</code> in the configuration. A file that could not be read is reported in the log
            and on the <a href={href('/status')}>Status</a> page's configuration.
          </p>
        </Empty>
      ) : shown.length === 0 ? (
        <Empty title={state && text === '' ? `No rule is ${state}` : 'No rule matches'}>
          <p>
            <button type="button" class="button small" onClick={() => setParams({ state: undefined, q: undefined })}>
              Show all rules
            </button>
          </p>
        </Empty>
      ) : (
        shown.map((g) => <Group key={`${g.file}\u0000${g.name}`} group={g} />)
      )}
    </div>
  );
}

function Group({ group }: { group: RuleGroup }) {
  const counts = countRules([group]);
  const [open, setOpen] = useState(true);
  return (
    <section class="card" aria-label={`Rule group ${group.name}`}>
      <div class="card-head">
        <button type="button" class="disclosure" aria-expanded={open} onClick={() => setOpen(!open)}>
          <Icon name="chevron" />
          <h2>{group.name}</h2>
        </button>
        {counts.firing > 0 ? <Badge tone="bad">{counts.firing} firing</Badge> : null}
        {counts.pending > 0 ? <Badge tone="warn">{counts.pending} pending</Badge> : null}
        <span class="grow" />
        <span class="muted small-text">
          <span class="file" title={group.file}>
            {group.file.split('/').pop()}
          </span>{' '}
          · every {human(group.interval)}
          {group.lastEvaluation ? (
            <>
              {' '}
              · evaluated <Ago ms={rfc3339(group.lastEvaluation)} />
            </>
          ) : null}
        </span>
      </div>
      {open ? (
        <div>
          {group.rules.map((r, i) => (
            <Rule key={`${r.name}${i}`} rule={r} />
          ))}
        </div>
      ) : null}
    </section>
  );
}

function Rule({ rule }: { rule: AlertingRule }) {
  const alerts = rule.alerts ?? [];
  const state = ruleState(rule);
  const [opened, setOpened] = useState<boolean | undefined>();
  const [all, setAll] = useState(false);
  const open = opened ?? alerts.length > 0;
  const shown = all ? alerts : alerts.slice(0, alertsMax);
  return (
    <div class="rule">
      <div class="rule-head">
        <button type="button" class="disclosure" aria-expanded={open} onClick={() => setOpened(!open)}>
          <Icon name="chevron" />
          <span class="rule-name">{rule.name}</span>
        </button>
        <Badge tone={alertTone(state)}>{alerts.length > 0 ? `${state} ${alerts.filter((a) => a.state === state).length}` : state}</Badge>
        {rule.health === 'err' ? <Badge tone="bad">evaluation fails</Badge> : null}
        <span class="grow" />
        <span class="muted small-text">
          {rule.duration > 0 ? `for ${human(rule.duration)}` : 'at once'}
          {rule.keepFiringFor ? ` · keeps firing ${human(rule.keepFiringFor)}` : ''}
        </span>
      </div>
      {rule.lastError ? (
        <div class="rule-error">
          <Icon name="fire" />
          <pre>{rule.lastError}</pre>
        </div>
      ) : null}
      {open ? (
        <div class="rule-body">
          <a
            class="expr"
            href={href('/explore', { 'g0.expr': rule.query, 'g0.tab': 'graph', 'g0.range_input': '1h' })}
            title="Open in Explore"
          >
            {rule.query.trim()}
          </a>
          <div class="rule-labels">
            <Labels labels={rule.labels ?? {}} />
            {Object.entries(rule.annotations ?? {}).map(([k, v]) => (
              <div key={k} class="annotation">
                <span class="muted">{k}</span> {v}
              </div>
            ))}
          </div>
          {shown.length > 0 ? (
            <table class="plain stacking alert-table">
              <thead>
                <tr>
                  <th scope="col">State</th>
                  <th scope="col">Since</th>
                  <th scope="col">Alert</th>
                  <th scope="col" class="num">
                    Value
                  </th>
                </tr>
              </thead>
              <tbody>
                {shown.map((a, i) => (
                  <tr key={i}>
                    <td>
                      <Badge tone={alertTone(a.state)}>{a.state}</Badge>
                    </td>
                    <td class="since">
                      <Ago ms={rfc3339(a.activeAt)} />
                    </td>
                    <td>
                      {Object.entries(a.annotations).map(([k, v]) => (
                        <div key={k} class="annotation">
                          {k === 'summary' || k === 'description' ? null : <span class="muted">{k} </span>}
                          {v}
                        </div>
                      ))}
                      <Labels labels={a.labels} skip={['alertname']} />
                    </td>
                    <td class="num mono">{shortValue(a.value)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          ) : null}
          {shown.length < alerts.length ? (
            <button type="button" class="button small" onClick={() => setAll(true)}>
              {alerts.length - shown.length} more
            </button>
          ) : null}
        </div>
      ) : null}
    </div>
  );
}

/** The API writes values as 3.1e+01. */
function shortValue(text: string): string {
  const n = Number(text);
  return Number.isFinite(n) ? String(Number(n.toPrecision(6))) : text;
}
