package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// Of three tags the two subscribed to come, the third does not.
func tagFilter(l *lab) error {
	topic := l.topic("tags")
	p, err := l.producer()
	if err != nil {
		return err
	}
	var wanted []string
	for i := 0; i < 60; i++ {
		tag := string("abc"[i%3])
		payload := fmt.Sprintf("%s%d", tag, i)
		if _, err := p.SendSync(context.Background(), message(topic, tag, payload)); err != nil {
			return err
		}
		if tag != "c" {
			wanted = append(wanted, payload)
		}
	}
	box := newInbox()
	if _, err := l.push(l.group("tags"), topic, "a || b", box.handle); err != nil {
		return err
	}
	if err := box.await(wanted, patience); err != nil {
		return err
	}
	if box.size() != len(wanted) {
		return fmt.Errorf("%d payloads came, %d carry the tags", box.size(), len(wanted))
	}
	return nil
}

// A group that exists already (this client learns of a new retry topic only after most of a minute) fails
// once; the second delivery carries the count and the topic it was sent to.
func retryOnce(l *lab) error {
	topic := l.topic("retry")
	p, err := l.producer()
	if err != nil {
		return err
	}
	before, err := send(p, topic, "before", 1)
	if err != nil {
		return err
	}
	founding := newInbox()
	founder, err := l.push(l.group("retry"), topic, "*", founding.handle)
	if err != nil {
		return err
	}
	if err := founding.await(before, patience); err != nil {
		return err
	}
	if err := founder.Shutdown(); err != nil {
		return err
	}
	sent, err := send(p, topic, "retry", 3)
	if err != nil {
		return err
	}
	box := newInbox()
	var mu sync.Mutex
	var wrong error
	_, err = l.push(l.group("retry"), topic, "*", func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		m := messages[0]
		if m.ReconsumeTimes == 0 {
			if concurrent, ok := primitive.GetConcurrentlyCtx(ctx); ok {
				concurrent.DelayLevelWhenNextConsume = 1
			}
			return consumer.ConsumeRetryLater, nil
		}
		if m.ReconsumeTimes != 1 || m.Topic != topic {
			mu.Lock()
			wrong = fmt.Errorf("a retry came with count %d and topic %s", m.ReconsumeTimes, m.Topic)
			mu.Unlock()
		}
		return box.handle(ctx, messages...)
	})
	if err != nil {
		return err
	}
	if err := box.await(sent, patience); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return wrong
}

// Messages of one key lie in one queue and are consumed in the order of sending.
func pushOrderly(l *lab) error {
	topic := l.topic("orderly")
	p, err := l.producer(producer.WithQueueSelector(producer.NewHashQueueSelector()))
	if err != nil {
		return err
	}
	var sent []string
	for n := 0; n < 20; n++ {
		for key := 0; key < 5; key++ {
			payload := fmt.Sprintf("k%d:%d", key, n)
			m := message(topic, "tag", payload).WithShardingKey(fmt.Sprintf("k%d", key))
			if _, err := p.SendSync(context.Background(), m); err != nil {
				return err
			}
			sent = append(sent, payload)
		}
	}
	box := newInbox()
	var mu sync.Mutex
	next := map[string]int{}
	var disorder error
	_, err = l.push(l.group("orderly"), topic, "*", func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		mu.Lock()
		for _, m := range messages {
			key, text, _ := strings.Cut(string(m.Body), ":")
			n, _ := strconv.Atoi(text)
			if n > next[key] {
				disorder = fmt.Errorf("out of order: %s came when %d was next", m.Body, next[key])
			}
			if n == next[key] {
				next[key]++
			}
		}
		mu.Unlock()
		return box.handle(ctx, messages...)
	}, consumer.WithConsumerOrder(true))
	if err != nil {
		return err
	}
	if err := box.await(sent, patience); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return disorder
}

// A consumer that was shut down goes on where it stopped.
func offsetRestart(l *lab) error {
	topic, group := l.topic("restart"), l.group("restart")
	p, err := l.producer()
	if err != nil {
		return err
	}
	half, err := send(p, topic, "half", 40)
	if err != nil {
		return err
	}
	first := newInbox()
	c, err := l.push(group, topic, "*", first.handle)
	if err != nil {
		return err
	}
	if err := first.await(half, patience); err != nil {
		return err
	}
	if err := c.Shutdown(); err != nil {
		return err
	}
	rest, err := send(p, topic, "rest", 40)
	if err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond)
	second := newInbox()
	if _, err := l.push(group, topic, "*", second.handle); err != nil {
		return err
	}
	return second.await(rest, patience)
}
