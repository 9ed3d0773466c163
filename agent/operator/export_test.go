package operator

// Propose is what is proposed for a process with selectors.
var Propose = propose

// MayAsk reports whether a user may ask an agent of another.
var MayAsk = mayAsk

// SameNamespace refuses a question from another PID namespace.
var SameNamespace = sameNamespace

// Trait is what there is to know of a selector.
type Trait = trait

// TraitOf is that of a selector.
var TraitOf = traitOf
