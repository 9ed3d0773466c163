package api

// InstanceHeader names, in each call of an agent, the run of the agent that makes
// it. It is a secret between the agent and the servers.
const InstanceHeader = "signet-instance"
