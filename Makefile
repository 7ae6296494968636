.PHONY: collector
collector: ## Builds the OpenTelemetry Collector that the configurations are tested with (Go 1.25 or later).
	collector-config/build
