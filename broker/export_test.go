package broker

// Covers is covers, for tests.
func Covers(allowed, wanted string) bool { return covers(allowed, wanted) }
