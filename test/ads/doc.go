// Package ads puts real Envoys on the server of package ads: make before break
// under load, refusals, restarts, in delta and state-of-the-world. It has no
// code of its own, only tests. SOAK=1 repeats the changes more often.
package ads
