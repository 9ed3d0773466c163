package attestation

import (
	"fmt"

	"signet.example/identity"
)

// CheckTask refuses selectors of an Entry, or of a Binding, that no process of a task has.
func CheckTask(selectors []string, binding bool) error {
	if err := CheckWorkload(selectors); err != nil {
		return err
	}
	for _, text := range selectors {
		s, err := identity.ParseSelector(text)
		switch {
		case err != nil:
			return err
		case supervisorForms.Has(s), ECSForms.Has(s):
		case !unitForms.Has(s):
			return fmt.Errorf("selector %s is of one process, and a task is attested as a whole: name %s, or signet:proxy:<name> for the proxy that the agent starts", identity.Abbreviate(text), theTask)
		case binding:
			return fmt.Errorf("selector %s in a Binding: a proxy that the agent of a task does not start is not served yet: name signet:proxy:<name>, and let the agent start it", theTask)
		}
	}
	return nil
}
