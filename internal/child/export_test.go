package child

// Ways in for tests.
var (
	UIDsInUse = uidsInUse
	IsAbsent  = isAbsent
)
