package refused

// FileOfBytes is a snapshot that counts as so many bytes.
func FileOfBytes(n int) File { return File{bytes: n} }
