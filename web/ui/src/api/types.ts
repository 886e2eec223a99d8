/** The parts of the HTTP API's answers that the pages read. Fields a server may lack are optional. */
import type { LabelSet } from '../format/labels';

export interface HistogramValue {
  count: string;
  sum: string;
  buckets?: [number, string, string, string][];
}
export type Point = [number, string];
export type HistogramPoint = [number, HistogramValue];

export interface VectorItem {
  metric: LabelSet;
  value?: Point;
  histogram?: HistogramPoint;
}
export interface MatrixItem {
  metric: LabelSet;
  values?: Point[];
  histograms?: HistogramPoint[];
}
export interface QueryStats {
  timings?: { evalTotalTime?: number; execTotalTime?: number };
  samples?: { totalQueryableSamples?: number; peakSamples?: number };
}
export type QueryData = { stats?: QueryStats } & (
  | { resultType: 'vector'; result: VectorItem[] }
  | { resultType: 'matrix'; result: MatrixItem[] }
  | { resultType: 'scalar'; result: Point }
  | { resultType: 'string'; result: Point }
);

export type AlertState = 'firing' | 'pending' | 'inactive' | 'unknown';
export interface Alert {
  labels: LabelSet;
  annotations: LabelSet;
  state: AlertState;
  activeAt?: string;
  keepFiringSince?: string;
  value: string;
}
export interface AlertingRule {
  type: 'alerting';
  name: string;
  query: string;
  duration: number;
  keepFiringFor?: number;
  labels?: LabelSet;
  annotations?: LabelSet;
  alerts?: Alert[];
  state: AlertState;
  health: string;
  lastError?: string;
  evaluationTime?: number;
  lastEvaluation?: string;
}
export interface RuleGroup {
  name: string;
  file: string;
  interval: number;
  rules: AlertingRule[];
  evaluationTime?: number;
  lastEvaluation?: string;
}

export interface Target {
  discoveredLabels?: LabelSet;
  labels: LabelSet;
  scrapePool: string;
  scrapeUrl: string;
  globalUrl?: string;
  lastError: string;
  lastScrape: string;
  lastScrapeDuration: number;
  health: string;
  scrapeInterval?: string;
  scrapeTimeout?: string;
}
export interface Targets {
  activeTargets: Target[];
  droppedTargetCounts?: Record<string, number>;
}

/** A broker that is looked for on the server's loopback. */
export interface LoopbackBroker {
  kind: string;
  address: string;
  state: 'unknown' | 'found' | 'absent' | 'unrecognised';
  supported: boolean;
}

export interface NamedCount {
  name: string;
  value: number;
}
export interface TsdbStatus {
  headStats: { numSeries: number; numLabelPairs?: number; chunkCount: number; minTime: number; maxTime: number };
  seriesCountByMetricName?: NamedCount[];
  labelValueCountByLabelName?: NamedCount[];
  memoryInBytesByLabelName?: NamedCount[];
  seriesCountByLabelValuePair?: NamedCount[];
}
