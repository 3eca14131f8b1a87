package flash

// For the tests of what the boot partition's files become, which are pure functions of text.
var (
	UserDataWith = userDataWith
	ParseDisks   = parseDisks
)
