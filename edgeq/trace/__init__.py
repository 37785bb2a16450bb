"""Beside the steps of a request: its spans for OpenTelemetry, from the decision to sample it to the collector.

spans        what is noted of a sampled request while it runs, and who decides which one is
encode       finished ones as OTLP's messages; the only module that imports opentelemetry's packages
exporter_io  a bounded queue and a thread that sends from it
"""
