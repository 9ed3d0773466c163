package unixsock

// SetMode gives a socket its mode.
var SetMode = setMode
