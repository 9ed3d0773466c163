package manifest

// DecodeSettings is ReadSettings of values that nobody looks at but their types.
func DecodeSettings(file string, content []byte, into any) error {
	read, err := ReadSettings(file, content, into)
	if err != nil {
		return err
	}
	return read.Check(nil)
}
