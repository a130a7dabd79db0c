"""Other ways to say what each MetaWorld task's sentence says: five to train on, three held out to test on."""

PARAPHRASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "assembly": (
        (
            "Fit the ring onto the peg.",
            "Could you grab the ring and slip it over the peg?",
            "Take hold of the ring's handle, lift it and lower it onto the peg.",
            "The ring should end up around the peg.",
            "please thread the ring on the peg",
        ),
        (
            "Assemble the parts: the peg has to go through the ring.",
            "I'd like the ring mounted on the upright peg.",
            "Drop the ring down so that it encircles the peg.",
        ),
    ),
    "basketball": (
        (
            "Put the ball in the basket.",
            "Could you dunk the ball into the basket?",
            "Grab the basketball, carry it to the hoop and let it fall through.",
            "The ball should go through the hoop.",
            "drop the basketball in the hoop",
        ),
        (
            "Score a basket with that ball.",
            "Please lift the ball up above the rim and release it.",
            "I want to see you make a slam dunk.",
        ),
    ),
    "bin-picking": (
        (
            "Move the cube to the other bin.",
            "Could you transfer the cube from this bin to the second one?",
            "Pick the cube up out of its bin and set it down in the empty bin.",
            "The cube belongs in the other bin.",
            "please switch the cube over to the opposite bin",
        ),
        (
            "Relocate the cube, it is in the wrong bin.",
            "I need what is in the first container dropped into the container next to it.",
            "Would you empty the full bin by carrying its cube across to its neighbour?",
        ),
    ),
    "box-close": (
        (
            "Close the box with its lid.",
            "Could you put the cover on the box?",
            "Pick up the lid, bring it over the box and set it down on top.",
            "The box should have its lid on.",
            "lid on the box, please",
        ),
        (
            "Shut the open box.",
            "Seal that container by fitting its top.",
            "Would you cap the box so that nothing can fall in?",
        ),
    ),
    "button-press": (
        (
            "Press the button on the front of the box.",
            "Could you push the front button inwards?",
            "With nothing in the way, press the button straight ahead of you.",
            "The button that faces you should be pressed in.",
            "please press the button in from the front",
        ),
        (
            "Move your fingers forward into the button and depress it.",
            "I need you to jab the button head-on.",
            "Would you shove the button horizontally into its housing?",
        ),
    ),
    "button-press-topdown": (
        (
            "Press the button from the top.",
            "Could you push down on the button that points up?",
            "Move above the button and push it straight down.",
            "The button on top of the box should be pressed down.",
            "push the top button downwards, please",
        ),
        (
            "Lower the gripper onto the button to depress it.",
            "Come down vertically on the button until it clicks.",
            "I want the upward-facing button squeezed into its box.",
        ),
    ),
    "button-press-topdown-wall": (
        (
            "Go over the wall and press the button from the top.",
            "Could you push down on the button behind the wall from above?",
            "Clear the wall first, then press down the button on top of the box.",
            "The upward-pointing button with the wall in front of it should be pressed downwards.",
            "push the button down from overhead, mind the wall",
        ),
        (
            "Lower the gripper onto the button that is hidden behind the bricks.",
            "Past the barrier there is an upward-facing button: come down on it from on high.",
            "I want you to cross the wall and then depress the button vertically.",
        ),
    ),
    "button-press-wall": (
        (
            "Press the button on the front of the box behind the wall.",
            "Could you get around the wall and press the button straight in?",
            "Avoid the wall, then push the front-facing button inwards.",
            "The front button behind the wall should be pressed in.",
            "push the button in horizontally, mind the wall",
        ),
        (
            "There is a wall in your way: go past it and jab the button head-on.",
            "Depress the button beyond the bricks by moving forward into it.",
            "Would you dodge the barrier and shove the button horizontally into its housing?",
        ),
    ),
    "coffee-button": (
        (
            "Press the button on the coffee maker.",
            "Could you start the coffee machine?",
            "Switch the coffee machine on with its button.",
            "The coffee machine's button should be pressed.",
            "hit the coffee button",
        ),
        (
            "Start the coffee maker by its button.",
            "I'd like an espresso, so get the machine going.",
            "Activate the brewer by poking its switch.",
        ),
    ),
    "coffee-pull": (
        (
            "Pull the mug out from under the coffee machine.",
            "Could you drag the cup away from the coffee maker?",
            "Take hold of the mug and slide it back towards you, clear of the coffee machine.",
            "The mug should be moved away from the coffee machine.",
            "bring me the mug from the coffee machine",
        ),
        (
            "My coffee is ready, fetch the cup.",
            "Remove the mug from beneath the spout.",
            "Would you get the cup out of the brewer and over to the marked spot?",
        ),
    ),
    "coffee-push": (
        (
            "Put the mug under the coffee machine.",
            "Could you slide the cup up to the coffee maker?",
            "Push the mug forward until it stands below the spout.",
            "The mug should be beneath the coffee machine.",
            "move the cup in under the coffee machine, please",
        ),
        (
            "Get the cup in place so that coffee can pour into it.",
            "I need the mug positioned at the brewer for filling.",
            "Would you shove that empty mug to where the coffee comes out?",
        ),
    ),
    "dial-turn": (
        (
            "Rotate the dial.",
            "Could you give the dial a turn?",
            "Put your fingers on the dial and turn it round.",
            "The dial should be turned.",
            "please spin the dial",
        ),
        (
            "Twist the dial to a new setting.",
            "Adjust that round dial.",
            "I'd like the pointer of the dial moved to another mark.",
        ),
    ),
    "disassemble": (
        (
            "Take the ring off the peg.",
            "Could you remove the ring from the peg?",
            "Grab the ring by its handle and raise it until it clears the peg.",
            "The ring should no longer be on the peg.",
            "please pull the ring up and off the peg",
        ),
        (
            "Disassemble the parts: separate the ring from the peg.",
            "I'd like the peg freed of its ring.",
            "Undo the assembly and hoist the ring away from its peg.",
        ),
    ),
    "door-close": (
        (
            "Shut the door.",
            "Could you close the door, please?",
            "Push the door until it is closed.",
            "The door should be shut.",
            "swing the door closed",
        ),
        (
            "Don't leave the door standing open.",
            "Move the door back into its frame.",
            "There is a draught, so please see to it that nothing comes through that door.",
        ),
    ),
    "door-lock": (
        (
            "Lock the door.",
            "Could you turn the latch so that the door is locked?",
            "Rotate the door's lock into the locked position.",
            "The door should be locked.",
            "please bolt the door",
        ),
        (
            "Secure the door with its lock.",
            "Make sure that nobody can open the door: engage the lock.",
            "I want the deadbolt turned to keep the door fastened.",
        ),
    ),
    "door-open": (
        (
            "Pull the door open.",
            "Could you open up the door?",
            "Take the door by its handle and swing it towards you.",
            "The door should be open.",
            "please get the door open",
        ),
        (
            "Draw the door out of its frame until it stands wide.",
            "Move the door on its hinges so that one can walk through.",
            "Tug at the door's handle, I want a clear doorway.",
        ),
    ),
    "door-unlock": (
        (
            "Unlock the door.",
            "Could you turn the latch so that the door is unlocked?",
            "Rotate the door's lock into the unlocked position.",
            "The door should no longer be locked.",
            "please unbolt the door",
        ),
        (
            "Release the lock on the door.",
            "Someone locked the door, undo that.",
            "I want the deadbolt turned to make the door unfastened.",
        ),
    ),
    "drawer-close": (
        (
            "Close the drawer.",
            "Could you slide the drawer shut?",
            "Push the drawer all the way in.",
            "The drawer should be closed.",
            "please shut that drawer",
        ),
        (
            "Don't leave the drawer sticking out.",
            "Return the drawer into its cabinet.",
            "I'd like the drawer moved back until it is flush.",
        ),
    ),
    "drawer-open": (
        (
            "Open the drawer.",
            "Could you slide the drawer out?",
            "Take the drawer by its handle and pull it towards you.",
            "The drawer should be open.",
            "please get the drawer open",
        ),
        (
            "Draw the drawer from its cabinet.",
            "Show me what is inside the drawer.",
            "Would you tug at the drawer's handle until it sticks out?",
        ),
    ),
    "faucet-close": (
        (
            "Turn off the faucet.",
            "Could you close the tap?",
            "Rotate the faucet's handle until the water stops.",
            "The faucet should be off.",
            "please shut the faucet",
        ),
        (
            "Don't let the water run any longer.",
            "I'd like no more water from that tap.",
            "Twist the spigot so that it quits pouring.",
        ),
    ),
    "faucet-open": (
        (
            "Turn on the faucet.",
            "Could you open the tap?",
            "Rotate the faucet's handle until the water flows.",
            "The faucet should be on.",
            "please start the faucet",
        ),
        (
            "Let the water run.",
            "I'd like some water from that tap.",
            "Twist the spigot so that it begins to pour.",
        ),
    ),
    "hammer": (
        (
            "Hammer the nail in.",
            "Could you hit the nail with the hammer?",
            "Grab the hammer by its handle and knock the nail into the wood.",
            "The nail should be driven in all the way.",
            "use the hammer on the nail, please",
        ),
        (
            "Pound that nail until it is flush.",
            "Strike the head of the nail with the tool.",
            "I need this nail sunk into the board.",
        ),
    ),
    "hand-insert": (
        (
            "Insert the block into the hole.",
            "Could you lower the block into the hole with your hand?",
            "Grip the block, hold it above the hole and let it down inside.",
            "The block should be placed inside the hole by hand.",
            "place the block in the hole, please",
        ),
        (
            "Carry the block to the opening in the table and tuck it in.",
            "Holding the block, reach down into the hole and leave it there.",
            "I'd like the block gripped firmly and then sunk into the recess.",
        ),
    ),
    "handle-press": (
        (
            "Push the handle in front of you down.",
            "Could you press down on the front handle?",
            "Put your hand on the handle straight ahead and push it to the bottom.",
            "The handle facing you should be pressed down.",
            "please press the front handle downwards",
        ),
        (
            "Lower the handle directly before you.",
            "Lean on the handle ahead until it sinks.",
            "I'd like the handle at the front brought to its lowest position.",
        ),
    ),
    "handle-press-side": (
        (
            "Push the handle on the side down.",
            "Could you press down on the handle beside you?",
            "Reach out sideways, put your hand on the handle and push it to the bottom.",
            "The side handle should be pressed down.",
            "please press the sideways handle downwards",
        ),
        (
            "Lower the handle that is off to one side.",
            "Lean on the lateral handle until it sinks.",
            "I'd like the handle at your flank brought to its lowest position.",
        ),
    ),
    "handle-pull": (
        (
            "Lift the handle in front of you.",
            "Could you pull the front handle upwards?",
            "Get under the handle straight ahead and raise it to the top.",
            "The handle facing you should be pulled up.",
            "please pull up on the front handle",
        ),
        (
            "Hoist the handle directly before you.",
            "Bring the handle ahead to its highest position.",
            "I'd like the handle at the front drawn up as far as it goes.",
        ),
    ),
    "handle-pull-side": (
        (
            "Lift the handle on the side.",
            "Could you pull the handle beside you upwards?",
            "Reach out sideways, get under the handle and raise it to the top.",
            "The side handle should be pulled up.",
            "please pull up on the sideways handle",
        ),
        (
            "Hoist the handle that is off to one side.",
            "Bring the lateral handle to its highest position.",
            "I'd like the handle at your flank drawn up as far as it goes.",
        ),
    ),
    "lever-pull": (
        (
            "Raise the lever.",
            "Could you pull the lever upwards?",
            "Hook the lever from below and lift it until it stands upright.",
            "The lever should be up.",
            "please flip the lever up",
        ),
        (
            "Move the lever to its top position.",
            "I need that lever hoisted.",
            "Would you swing the lever's arm from horizontal to vertical?",
        ),
    ),
    "peg-insert-side": (
        (
            "Insert the peg into the side of the box.",
            "Could you stick the peg in the hole on the box's side?",
            "Grab the peg, line it up with the hole in the side of the box and push it in.",
            "The peg should be inside the box's side hole.",
            "please plug the peg into the box from the side",
        ),
        (
            "Fit the pin sideways through the opening of the box.",
            "Fill the hole in the box's flank with the peg.",
            "I want the loose rod to sit in the box's lateral socket.",
        ),
    ),
    "peg-unplug-side": (
        (
            "Unplug the peg from the side of the box.",
            "Could you pull the plug out sideways?",
            "Grab the peg that sticks in the box and draw it out of its hole.",
            "The peg should no longer be in the box.",
            "please take the peg out of the side hole",
        ),
        (
            "Extract the pin from the box's lateral socket.",
            "Disconnect the plug.",
            "I want that rod tugged free of the box's flank.",
        ),
    ),
    "pick-out-of-hole": (
        (
            "Take the block out of the hole.",
            "Could you get the block out of that hole and carry it to the target?",
            "Reach into the hole, grab the block and raise it to the goal.",
            "The block should be out of the hole and at the goal.",
            "please pull the block up out of the hole",
        ),
        (
            "The block has fallen into a pit, rescue it.",
            "Retrieve the block from the recess and deliver it to the goal position.",
            "Would you empty the hole by fetching what is inside?",
        ),
    ),
    "pick-place": (
        (
            "Pick the block up and place it at the goal.",
            "Could you lift the block and carry it to the target?",
            "Grab the block, raise it off the table and hold it at the marked point.",
            "The block should be lifted to the goal position.",
            "take the block up to the target in the air, please",
        ),
        (
            "Fetch the block and deliver it to the marked spot, clear of the table.",
            "Grasp that cylinder and transport it through free air to its destination.",
            "I'd like the block held by your gripper at the indicated point above the table.",
        ),
    ),
    "pick-place-wall": (
        (
            "Pick the block up, lift it over the wall and place it at the goal.",
            "Could you carry the block over the wall to the target?",
            "Grab the block, raise it above the wall and bring it to the marked point.",
            "The block should be lifted across the wall to the goal position.",
            "take the block up and over the wall to the target, please",
        ),
        (
            "Grasp the block and fly it across the barrier to its destination.",
            "I'd like the block hoisted over the bricks and brought to the indicated point.",
            "With the block in your grip, rise clear of the wall and deliver it to the spot beyond.",
        ),
    ),
    "plate-slide": (
        (
            "Push the plate straight ahead into the net.",
            "Could you slide the plate forwards into the goal?",
            "Get behind the plate and shove it away from you until it is in the net.",
            "The plate should go forward into the net in front of you.",
            "please move the plate ahead into the net",
        ),
        (
            "Drive the disc forward between the posts.",
            "Score by gliding the plate straight away from yourself.",
            "I'd like the plate to end up inside the net ahead of it.",
        ),
    ),
    "plate-slide-back": (
        (
            "Pull the plate out of the net towards you.",
            "Could you slide the plate backwards out of the goal?",
            "Reach into the net ahead, hold the plate and drag it back to you.",
            "The plate should come back out of the net in front of you.",
            "please move the plate back from the net",
        ),
        (
            "Retrieve the disc from between the posts straight ahead.",
            "Withdraw the plate from the front net, bringing it nearer to yourself.",
            "I'd like the plate drawn backwards until the net is empty.",
        ),
    ),
    "plate-slide-back-side": (
        (
            "Pull the plate out of the net to the side.",
            "Could you slide the plate sideways out of the goal?",
            "Reach into the net at the side and drag the plate across, out of it.",
            "The plate should come out of the side net.",
            "please move the plate sideways, away from the net",
        ),
        (
            "Retrieve the disc from between the posts with a lateral motion.",
            "Withdraw the plate from the net at your flank.",
            "I'd like the plate drawn across to one side until the net is empty.",
        ),
    ),
    "plate-slide-side": (
        (
            "Push the plate to the side, into the net.",
            "Could you slide the plate across into the net beside it?",
            "Get next to the plate and shove it sideways until it is in the net.",
            "The plate should go into the net at the side.",
            "please move the plate over sideways into the goal",
        ),
        (
            "Drive the disc laterally between the posts.",
            "Score by gliding the plate off to one side.",
            "I'd like the plate to end up inside the net that stands at its flank.",
        ),
    ),
    "push": (
        (
            "Push the block forward to the target.",
            "Could you shove the block straight across the table to the goal?",
            "Get behind the block and slide it away from you until it reaches the goal.",
            "The block should be pushed forward onto the goal.",
            "please move the block ahead along the table to the target",
        ),
        (
            "Nudge the block onwards until it rests on the marked spot.",
            "Without lifting it, drive the block forward to its destination.",
            "I'd like that block scooted over the open tabletop, away from you, to the indicated place.",
        ),
    ),
    "push-back": (
        (
            "Drag the block back towards you to the goal.",
            "Could you pull the block backwards to the target?",
            "Reach past the block and slide it towards yourself until it is at the goal.",
            "The block should be moved back onto the goal near you.",
            "please slide the block back to the target",
        ),
        (
            "Haul the block nearer until it rests on the marked spot.",
            "Without lifting it, draw the block in to its destination close to you.",
            "I'd like that block retracted over the tabletop to the indicated place.",
        ),
    ),
    "push-wall": (
        (
            "Push the block past the wall to the target.",
            "Could you shove the block around the wall and onto the goal?",
            "Slide the block along the table, steering clear of the wall, until it reaches the goal.",
            "The block should be pushed to the goal behind the wall.",
            "please move the block along the table round the wall to the target",
        ),
        (
            "Nudge the block by the barrier until it rests on the marked spot behind.",
            "Without lifting it, get the block round the bricks to its destination.",
            "There is a wall in the way: scoot the block around it to the indicated place.",
        ),
    ),
    "reach": (
        (
            "Move the gripper to the target.",
            "Could you reach for the goal point?",
            "Put your hand directly at the marked position.",
            "The gripper should be at the goal.",
            "please go straight to the target with your hand",
        ),
        (
            "Stretch out the arm until its tip touches the indicated point.",
            "Position the end effector at the destination.",
            "I'd like your empty fingers right on the marked spot in the air.",
        ),
    ),
    "reach-wall": (
        (
            "Move the gripper past the wall to the target.",
            "Could you reach around the wall to the goal point?",
            "Put your hand at the marked position behind the wall.",
            "The gripper should be at the goal beyond the wall.",
            "please take your hand to the target without hitting the wall",
        ),
        (
            "Stretch out the arm round the barrier until its tip touches the indicated point.",
            "Position the end effector at the destination on the far side of the bricks.",
            "There is a wall in your way: avoid it and hover with empty fingers at the marked spot.",
        ),
    ),
    "shelf-place": (
        (
            "Place the block on the shelf.",
            "Could you lift the block up onto the shelf?",
            "Grab the block, raise it and set it down on the shelf.",
            "The block should be on the shelf.",
            "please shelve the block",
        ),
        (
            "Store the block up on the rack.",
            "Would you deposit the block on the raised ledge?",
            "That shelf is still empty, so get the block up there.",
        ),
    ),
    "soccer": (
        (
            "Shoot the soccer ball into the goal.",
            "Could you kick the ball into the net?",
            "Get behind the ball and roll it forward until it is in the goal.",
            "The soccer ball should be in the net.",
            "please score a goal with the soccer ball",
        ),
        (
            "Make the football cross the goal line.",
            "Dribble the ball between the goalposts.",
            "Would you knock the ball between the posts?",
        ),
    ),
    "stick-pull": (
        (
            "Pull the box with the stick.",
            "Could you use the stick to drag the box?",
            "Grab the stick, hook it into the box's handle and pull the box to the goal.",
            "The box should be pulled along by the stick.",
            "please take the stick and drag the thermos back with it",
        ),
        (
            "Tow the box by means of the rod.",
            "Hook the thermos with the stick and haul it in.",
            "I'd like the container drawn nearer, using the stick as a tool.",
        ),
    ),
    "stick-push": (
        (
            "Push the box with the stick.",
            "Could you use the stick to shove the box?",
            "Grab the stick, hold its end against the box and push the box to the goal.",
            "The box should be pushed along by the stick.",
            "please take the stick and push the thermos away with it",
        ),
        (
            "Propel the box by means of the rod.",
            "Prod the thermos onward with the stick.",
            "I'd like the container moved away, using the stick as a ram.",
        ),
    ),
    "sweep": (
        (
            "Push the block off the edge of the table.",
            "Could you brush the block off the table?",
            "Get beside the block and sweep it along until it falls off the table.",
            "The block should be swept off the tabletop.",
            "please clear the block off the table",
        ),
        (
            "Wipe the block over the table's edge.",
            "Knock the block to the floor.",
            "I'd like an empty table, so send that block over the side.",
        ),
    ),
    "sweep-into": (
        (
            "Push the block along the table into the hole.",
            "Could you brush the block into the hole?",
            "Get behind the block and sweep it along until it drops into the hole.",
            "The block should be swept into the hole in the table.",
            "please slide the block over to the hole and in",
        ),
        (
            "Wipe the block across the surface until it tumbles into the pit.",
            "Drag the block on the tabletop, without lifting it, down the opening.",
            "I'd like that block scooted over the table so that it falls in the recess.",
        ),
    ),
    "window-close": (
        (
            "shut the window",
            "Could you slide the window closed?",
            "Push the window by its handle until no gap is left.",
            "The window should be closed.",
            "Please close the window.",
        ),
        (
            "Don't leave the window ajar.",
            "Move the pane across so that the opening is covered.",
            "I'd like no more outside air through that window.",
        ),
    ),
    "window-open": (
        (
            "open the window",
            "Could you slide the window open?",
            "Push the window by its handle until there is a wide gap.",
            "The window should be open.",
            "Please get the window opened.",
        ),
        (
            "Let some fresh air in through the window.",
            "Move the pane aside so that the opening is free.",
            "That window must not stay shut.",
        ),
    ),
}
