module podnet.test/workload

go 1.24
