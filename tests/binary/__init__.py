"""The single executable file, tried out with nothing around it. `make test-binary` builds it and runs these."""
