package ads

type heads struct{ delta, sotw []byte }
