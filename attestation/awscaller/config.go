package awscaller

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"signet.example/attestation/platform"
	"signet.example/identity"
	"signet.example/internal/awsclient"
)

const maxAccounts, maxRegions = 16, 32

// roleSelector begins the one of a role.
const roleSelector = Name + ":role:"

// Config is the server's end, as configured. Without accounts the method is off.
type Config struct {
	// Regions whose STS the server asks, and no other.
	Regions  []Region  `yaml:"regions" json:"regions"`
	Accounts []Account `yaml:"accounts" json:"accounts"`
	// AgentsPerRole is how many agents may be there at a time that joined by one role; 5,000
	// where it is not given.
	AgentsPerRole int `yaml:"agents_per_role" json:"agents_per_role"`
}

// Region is one whose STS is asked.
type Region struct {
	Region string `yaml:"region" json:"region"`
	// Endpoint at which it is reached, in place of its own address, as an interface endpoint of a
	// VPC without a private DNS name. It is asked, and has to prove, that it is the region's STS.
	Endpoint string `yaml:"endpoint" json:"endpoint"`
}

// Account is an account of AWS whose tasks may join.
type Account struct {
	// Account is its number, of twelve digits.
	Account string `yaml:"account" json:"account"`
	// Roles, by ARN, whose tasks may join.
	Roles []string `yaml:"roles" json:"roles"`
}

// MostOfRole is how many agents a role may have.
func (c Config) MostOfRole() int { return cmp.Or(c.AgentsPerRole, platform.DefaultAgents) }

// Takes returns why tasks with these selectors are not let in any more that joined once: their
// role is not named now.
func (c Config) Takes(selectors []string) error {
	role := strings.TrimPrefix(Principal(selectors), roleSelector)
	if slices.ContainsFunc(c.Accounts, func(a Account) bool { return slices.Contains(a.Roles, role) }) {
		return nil
	}
	return fmt.Errorf("its role %s is not among those in join.%s.accounts of the server", identity.Abbreviate(role), Name)
}

// check returns what is wrong, beginning with the key.
func (c Config) check() error {
	if n := len(c.Accounts); n > maxAccounts {
		return fmt.Errorf("accounts: %d of them: at most %d", n, maxAccounts)
	}
	if n := len(c.Regions); n == 0 || n > maxRegions {
		return fmt.Errorf("regions: %d of them: want 1 to %d, whose STS the server may ask", n, maxRegions)
	}
	for i, r := range c.Regions {
		if err := r.check(); err != nil {
			return fmt.Errorf("regions[%d].%w", i, err)
		}
		if slices.ContainsFunc(c.Regions[:i], func(o Region) bool { return o.Region == r.Region }) {
			return fmt.Errorf("regions[%d].region: %s is there twice", i, r.Region)
		}
	}
	for i, a := range c.Accounts {
		if err := a.check(); err != nil {
			return fmt.Errorf("accounts[%d].%w", i, err)
		}
		if slices.ContainsFunc(c.Accounts[:i], func(b Account) bool { return a.Account == b.Account }) {
			return fmt.Errorf("accounts[%d].account: %s is there twice", i, a.Account)
		}
	}
	return nil
}

func (r Region) check() error {
	if _, err := hostOf(r.Region); err != nil {
		return fmt.Errorf("region: %w", err)
	}
	if r.Endpoint == "" {
		return nil
	}
	if err := awsclient.CheckEndpoint(r.Endpoint); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	return nil
}

// check refuses two roles of one name as well: STS says a role's name without its path, and an
// account has a name once, in whatever case.
func (a Account) check() error {
	if err := awsclient.CheckAccount(a.Account); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if err := awsclient.CheckRoles(a.Account, a.Roles); err != nil {
		return err
	}
	for i, r := range a.Roles {
		if slices.ContainsFunc(a.Roles[:i], func(o string) bool { return strings.EqualFold(nameOf(o), nameOf(r)) }) {
			return fmt.Errorf("roles[%d]: %s has the name of another one: an account has each once, whatever its path", i, r)
		}
	}
	return nil
}

// nameOf is a role's name, without its path.
func nameOf(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// Selectors are the forms that a task has, each with a check of the value. All are AWS's word.
// The region is none: the task chooses whose STS is asked.
var Selectors = map[string]func(string) error{
	"account": awsclient.CheckAccount,
	"role":    awsclient.CheckRole,
}

// Principal is who vouched for a task with these selectors: the one of its role.
func Principal(selectors []string) string {
	i := slices.IndexFunc(selectors, func(s string) bool { return strings.HasPrefix(s, roleSelector) })
	if i < 0 {
		return ""
	}
	return selectors[i]
}
