package proxy

import "time"

// AnswerWithin is how long a proxy waits for an answer of its agent. Answers take less than a
// millisecond, or a few; on a host without a processor to spare they come late, and so does
// Envoy's own loop to them. A request without one is denied, and a connection closed
// (docs/decisions/097).
const AnswerWithin = 5 * time.Second
