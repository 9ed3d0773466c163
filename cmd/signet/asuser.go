package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"signet.example/internal/child"
	"signet.example/internal/private"
)

// unitGrants are the capabilities of the agent's unit (docs/AGENT.md), as setpriv(1) names them.
const unitGrants = "+sys_ptrace,+setuid,+setgid,+kill"

// byOwner has a hint with this command line as it works, where what failed is only who
// runs it: another user than the one whose folder it is, or the agent's user without what
// its unit grants.
func byOwner(err error, agent bool) error {
	var foreign *private.ForeignError
	var lack *child.LackError
	switch {
	case errors.As(err, &foreign):
		line := asUser(os.Args, foreign.UID, foreign.GID, foreign.Dir, agent)
		return hinted(err, "as that user: "+line)
	case errors.As(err, &lack) && private.Self() != 0:
		line := asUser(os.Args, private.Self(), uint32(os.Getegid()), "", agent) //nolint:gosec // a gid has 32 bits
		return hinted(err, "the unit of docs/AGENT.md grants these; without it, as root: "+line)
	}
	return err
}

// plainWord is what a shell reads as it stands.
var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// asUser is a command line as another user runs it, for a shell; dataDir, which has
// another default for each user, is named in it. setpriv(1) is there where util-linux is.
func asUser(args []string, uid, gid uint32, dataDir string, capable bool) string {
	who, groups := strconv.FormatUint(uint64(uid), 10), "--clear-groups"
	if name, primary := child.NameOf(uid); plainWord.MatchString(name) {
		who, gid, groups = name, primary, "--init-groups"
	}
	line := []string{"setpriv", "--reuid=" + who, fmt.Sprintf("--regid=%d", gid), groups}
	if capable && uid != 0 {
		line = append(line, "--inh-caps="+unitGrants, "--ambient-caps="+unitGrants)
	}
	named := false
	for _, word := range args {
		named = named || word == "--data-dir" || strings.HasPrefix(word, "--data-dir=")
		line = append(line, quoted(word))
	}
	if dataDir != "" && !named {
		line = append(line, "--data-dir", quoted(dataDir))
	}
	if private.Self() != 0 && dataDir != "" {
		line = append([]string{"sudo"}, line...)
	}
	return strings.Join(line, " ")
}

// quoted is a word for a shell.
func quoted(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return fmt.Sprintf("'%s'", strings.ReplaceAll(word, "'", `'\''`))
}
