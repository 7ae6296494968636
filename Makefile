.PHONY: collector kafka compose
collector: ## Builds the OpenTelemetry Collector that the configurations are tested with (Go 1.25 or later).
	collector-config/build
kafka: ## Brings Kafka's jars, for the tests with a broker (Maven; Java 17 to run them).
	tests/collector/kafka/fetch.sh
compose: ## Builds the reader of compose files, for the test of deploy/compose (Go).
	tests/collector/compose/build.sh
