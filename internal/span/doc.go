// Package span begins the spans of traces (OpenTelemetry) in the rooms below the command, which know the API and no
// exporter. A span is begun only below another that is recorded, so where nothing is traced it costs one look-up in the
// context.
//
// Attributes are the names of operations, providers, results and routes. Never are they what a client or a provider
// sent, nor who a person is: traces are kept by others than the log, and for longer.
package span
