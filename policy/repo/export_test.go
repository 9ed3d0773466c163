package repo

import "context"

// Fetch is Login.Fetch without a login.
func Fetch(ctx context.Context, src Source, dir string) (Tree, error) {
	return Login{}.Fetch(ctx, src, dir)
}
