package awsclient_test

import (
	"strings"
	"testing"

	"signet.example/internal/awsclient"
)

func TestTheARNOfATaskIsReadInBothForms(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	for arn, want := range map[string]awsclient.TaskARN{
		"arn:aws:ecs:eu-west-1:123456789012:task/prod/" + id:                               {Partition: "aws", Region: "eu-west-1", Account: "123456789012", Cluster: "prod", ID: id},
		"arn:aws-cn:ecs:cn-north-1:123456789012:task/9781c248-0edd-4cdb-9a93-f63cb662a5d3": {Partition: "aws-cn", Region: "cn-north-1", Account: "123456789012", ID: "9781c248-0edd-4cdb-9a93-f63cb662a5d3"},
	} {
		if got, err := awsclient.ParseTaskARN(arn); err != nil || got != want {
			t.Errorf("%s: %+v, %v", arn, got, err)
		}
	}
	for _, bad := range []string{
		"", id, "arn:aws:ecs:eu-west-1:123456789012:task/prod/" + id + "\n", "arn:aws:ecs:eu-west-1:1234:task/prod/" + id,
		"arn:aws:ecs:eu-west-1:123456789012:task/prod/other/" + id, "arn:aws:ecs:europe:123456789012:task/prod/" + id,
		"arn:aws:ecs:eu-west-1:123456789012:service/prod/web", "arn:aws:ecs:eu-west-1:123456789012:task/prod/" + id[:31] + "g",
		"arn:aws:ecs:eu-west-1:123456789012:task/" + id + "-",
	} {
		if got, err := awsclient.ParseTaskARN(bad); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
	for s, want := range map[string]bool{id: true, "9781c248-0edd-4cdb-9a93-f63cb662a5d3": true, "session-1": false, "": false, id + "0": false} {
		if awsclient.IsTaskID(s) != want {
			t.Errorf("%s is the id of a task: %t", s, !want)
		}
	}
}

func TestATaskThatSaysThatItIsAnotherThanItsEvidenceSaysIsRefused(t *testing.T) {
	const (
		account, other = "123456789012", "210987654321"
		id             = "0123456789abcdef0123456789abcdef"
		arn            = "arn:aws:ecs:eu-west-1:" + account + ":task/prod/" + id
	)
	for _, c := range []struct{ arn, account, session, want string }{
		{"", account, id, ""},
		{arn, account, "", ""},
		{arn, account, id, ""},
		{arn, account, "deploy@example", ""}, // somebody else's name for a session
		{arn, other, "", "a task of account " + account + ", and its evidence is of account " + other},
		{arn, account, strings.Repeat("f", 32), "it is task " + id + ", and its evidence is of task ffff"},
		{"arn:aws:iam::" + account + ":role/web", account, "", "is not the ARN of a task"},
	} {
		err := awsclient.SameTask(c.arn, c.account, c.session)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
