/** Explore: any number of query panels; all of their state is in the URL. */
import './explore.css';
import { useMemo, useRef } from 'preact/hooks';
import { loadMetricNames } from '../../api/names';
import { useResource } from '../../api/resource';
import { Icon } from '../../parts/icons';
import { go, href, location } from '../../router';
import { ExplorePanel } from './panel';
import { decodePanels, defaultPanel, encodePanels, type PanelState } from './url';

export function ExplorePage() {
  const { params } = location.value;
  const panels = useMemo(() => {
    const list = decodePanels(params);
    return list.length === 0 ? [defaultPanel] : list;
  }, [params]);
  // Panels keep their drafts and results when one before them is removed: keys follow the panels, not their numbers.
  const ids = useRef<{ list: number[]; next: number }>({ list: [], next: 0 });
  while (ids.current.list.length < panels.length) ids.current.list.push(ids.current.next++);
  ids.current.list.length = panels.length;

  const names = useResource('metric names', loadMetricNames, 300);

  const write = (next: readonly PanelState[], replace: boolean) => go(href('/explore', encodePanels(next)), { replace });
  const change = (i: number, part: Partial<PanelState>, replace = false) =>
    write(
      panels.map((p, j) => (j === i ? { ...p, ...part } : p)),
      replace,
    );
  const remove = (i: number) => {
    ids.current.list.splice(i, 1);
    write(
      panels.filter((_, j) => j !== i),
      false,
    );
  };
  const add = () => {
    const last = panels[panels.length - 1] ?? defaultPanel;
    write([...panels, { ...last, expr: '' }], false);
  };

  return (
    <div class="page">
      <h1 class="sr">Explore</h1>
      {panels.map((panel, i) => (
        <ExplorePanel
          key={ids.current.list[i]}
          number={i + 1}
          panel={panel}
          names={names.data}
          onChange={(part, replace) => change(i, part, replace)}
          onRemove={panels.length > 1 ? () => remove(i) : undefined}
        />
      ))}
      <button type="button" class="button add-panel" onClick={add}>
        <Icon name="plus" />
        Add panel
      </button>
    </div>
  );
}
