// Package service balances the traffic to Kubernetes Services.
package service
