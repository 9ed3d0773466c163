package api

import "time"

// MaxTokenTTL is how long a join token may be good: more in CreateTokenRequest is refused.
const MaxTokenTTL = 24 * time.Hour
