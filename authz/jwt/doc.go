// Package jwt owns end-user tokens: who may issue them (IssuerSpec, the spec of
// kind JWTIssuer), the issuers' key sets, and what makes a token good.
//
// There is one reader of keys: what apply refuses of an inline set, what is kept
// of a fetched one, and what tokens are verified by are the same check.
//
// It must not know HTTP, policies or where keys are fetched from: authz finds
// the token in a request and says what its claims mean, the server fetches.
//
// Main types in order: IssuerSpec and Issuer; ALBSpec, of load balancers, whose tokens and
// keys have a form of their own; Issuers, whose Verify makes a Token of a Compact.
//
// # Concurrency
//
// All values are immutable once made, so Issuers.Verify may be called from any number
// of goroutines. The package starts none.
package jwt
