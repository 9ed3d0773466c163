package awsclient

import (
	"fmt"
	"regexp"
	"sync"
)

// TaskARN is what the ARN of a task of ECS has in it.
type TaskARN struct {
	Partition, Region, Account string
	Cluster                    string // by name; "" in the form that ECS had before 2018
	ID                         string
}

var (
	taskForm = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^arn:([a-z-]+):ecs:([a-z0-9-]+):([0-9]{12}):task/(?:([\w-]{1,255})/)?([0-9a-f-]{32,36})$`)
	})
	taskIDForm = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	})
)

// ParseTaskARN reads the ARN of a task.
func ParseTaskARN(s string) (TaskARN, error) {
	parts := taskForm().FindStringSubmatch(s)
	if len(s) > mostARN || parts == nil || CheckRegion(parts[2]) != nil || !IsTaskID(parts[5]) {
		return TaskARN{}, fmt.Errorf("%.80q is not the ARN of a task, such as arn:aws:ecs:eu-west-1:123456789012:task/prod/0123456789abcdef0123456789abcdef", s)
	}
	return TaskARN{Partition: parts[1], Region: parts[2], Account: parts[3], Cluster: parts[4], ID: parts[5]}, nil
}

// mostARN is more than an ARN of a task has.
const mostARN = 512

// IsTaskID reports whether a text has the form of a task's id, as ECS names the session of its
// role: somebody who takes the role elsewhere chooses another name, or none of this form.
func IsTaskID(s string) bool { return taskIDForm().MatchString(s) }

// SameTask refuses what the ARN that a task says it has contradicts of its evidence: an
// account, and the session of its role, "" where that is not proven. ECS names a session by the
// task's id; one whose name is of another form says nothing of the task. Without an ARN there is
// nothing to compare: it is the task's own word, and proves nothing.
func SameTask(arn, account, session string) error {
	if arn == "" {
		return nil
	}
	task, err := ParseTaskARN(arn)
	switch {
	case err != nil:
		return err
	case task.Account != account:
		return fmt.Errorf("it says that it is a task of account %s, and its evidence is of account %s", task.Account, account)
	case IsTaskID(session) && session != task.ID:
		return fmt.Errorf("it says that it is task %s, and its evidence is of task %s", task.ID, session)
	}
	return nil
}
